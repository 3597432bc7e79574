"""The teacher behind a server: a scripted one that fails in every way, and a real one."""

from __future__ import annotations

import email.utils
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import pytest
from chat_server import Reply, chat_server, completion, query_of

from scaledown.data.pipeline.teacher import TeacherConfig, load_teacher, server
from scaledown.data.pipeline.teacher.endpoint import Trouble, _seconds
from scaledown.data.world.synthetic import synthetic_records
from scaledown.hub import EMBEDDED_FOLDER
from scaledown.prompt import SYSTEM

QUESTIONS = [(f"q{number}", [f"document {number}"]) for number in range(12)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(server, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def teacher(url, **settings):
    return load_teacher(TeacherConfig(teacher_model="m", teacher_url=url, **{"teacher_timeout_seconds": 60.0}
                                      | {"teacher_patience_seconds": 60.0} | settings))


def echo(body, times):
    return completion(f" answer to {query_of(body)}\n", prompt_tokens=7, completion_tokens=2)


def all_but_the_first(reply):
    """Answer what is asked at the start, so that the run itself meets ``reply``."""
    return lambda body, times: completion("x") if query_of(body) == server.FIRST_QUESTION[0] else reply(body, times)


def test_each_question_is_asked_once_in_the_generators_words(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with chat_server(echo) as asked:
        ours = teacher(asked.url + "/", teacher_max_new_tokens=9)
        got = dict(ours.answers(QUESTIONS))
    assert got == {number: f"answer to q{number}" for number in range(12)}
    assert (ours.num_prompt_tokens, ours.num_answer_tokens) == (84, 24)
    assert sorted(asked.queries()[1:]) == sorted(query for query, _ in QUESTIONS)
    body, headers = next(each for each in asked.requests if query_of(each[0]) == "q3")
    assert body["messages"] == [{"role": "system", "content": SYSTEM},
                                {"role": "user", "content": "Background:\ndocument 3\n\nQuestion: q3"}]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0, 9)
    assert headers["Authorization"] == "Bearer sk-secret"


def test_answers_come_as_they_are_ready_and_no_more_are_asked_at_once_than_allowed():
    most, now, lock, first_may_end = [0], [0], threading.Lock(), threading.Event()

    def reply(body, times):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        if query_of(body) == "q0":
            first_may_end.wait(60)
        with lock:
            now[0] -= 1
        return echo(body, times)

    with chat_server(reply) as asked:
        order = []
        for number, _ in teacher(asked.url, teacher_concurrency=3).answers(QUESTIONS):
            order.append(number)
            if len(order) == 11:
                first_may_end.set()
    assert order[-1] == 0 and sorted(order) == list(range(12))
    assert 1 < most[0] <= 3


@pytest.mark.parametrize("trouble", [
    Reply(429, "slow down", {"Retry-After": "0"}), Reply(500, "oops"), Reply(503, "loading"),
    Reply(200, "<html>proxy</html>"), Reply(200, "{}"), Reply(200, '{"choices": []}'), completion(None),
    Reply(200, '{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 1e999}}'),
    Reply(200, "[" * 100_000)])
def test_what_may_pass_is_asked_again(trouble):
    with chat_server(all_but_the_first(lambda body, times: trouble if times < 3 else echo(body, times))) as asked:
        got = dict(teacher(asked.url).answers(QUESTIONS[:2]))
    assert got == {0: "answer to q0", 1: "answer to q1"}
    assert asked.queries()[1:].count("q0") == 3


def test_a_server_that_hangs_up_is_asked_again():
    def reply(body, times):
        if times == 1:
            raise ConnectionAbortedError
        return echo(body, times)

    with chat_server(all_but_the_first(reply)) as asked:
        asked_again = dict(teacher(asked.url).answers(QUESTIONS[:1]))
    assert asked_again == {0: "answer to q0"}


@pytest.mark.parametrize(("trouble", "words"), [
    (Reply(500, "out of order"), "answers 500 (out of order)"), (Reply(429, "later"), "answers 429 (later)"),
    (Reply(200, "nonsense"), "no answer in it (nonsense)")])
def test_after_the_patience_the_run_ends_and_says_what_is_safe(trouble, words):
    def reply(body, times):
        return trouble if query_of(body) == "q3" else echo(body, times)

    with chat_server(reply) as asked:
        got = {}
        with pytest.raises(ValueError, match="run the same command again") as fault:
            for number, answer in teacher(asked.url, teacher_concurrency=2, teacher_patience_seconds=0.2
                                          ).answers(QUESTIONS):
                got[number] = answer
    assert words in str(fault.value) and f"The {len(got)} answers of this run are safe" in str(fault.value)
    assert {0, 1, 2} <= set(got) and 3 not in got


def test_what_is_under_way_when_one_fails_still_counts_and_nothing_new_is_asked():
    refused = threading.Event()

    def reply(body, times):
        if query_of(body) == "q0":
            refused.set()
            return Reply(413, "too long")
        refused.wait(60)
        time.sleep(0.1)
        return echo(body, times)

    with chat_server(all_but_the_first(reply)) as asked:
        got = []
        with pytest.raises(ValueError, match="answers 413"):
            got.extend(teacher(asked.url, teacher_concurrency=3).answers(QUESTIONS))
            raise AssertionError("unreachable")
    assert sorted(asked.queries()[1:]) == ["q0", "q1", "q2"]


def test_after_a_failure_nobody_waits_to_ask_again():
    waiting = threading.Event()

    def reply(body, times):
        if query_of(body) == "q0":
            waiting.wait(60)
            return Reply(413, "too long")
        waiting.set()
        return Reply(429, "later", {"Retry-After": "40"}) if times == 1 else echo(body, times)

    with chat_server(all_but_the_first(reply)) as asked, pytest.raises(ValueError, match="answers 413.* The 0 answers"):
        list(teacher(asked.url).answers(QUESTIONS[:2]))
    assert asked.queries().count("q1") == 1


def test_a_server_that_never_answers_is_given_up():
    over = threading.Event()

    def reply(body, times):
        over.wait(10)
        return echo(body, times)

    with chat_server(all_but_the_first(reply)) as asked:
        with pytest.raises(ValueError, match="no answer within 0.2 seconds"):
            list(teacher(asked.url, teacher_timeout_seconds=0.2, teacher_patience_seconds=0.3).answers(QUESTIONS[:1]))
        over.set()
    assert len(asked.requests) == 3


def test_where_no_server_is_the_start_says_so():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(ValueError, match=f"--teacher_url {url}: cannot be reached"):
            teacher(url, teacher_patience_seconds=0.1)


@pytest.mark.parametrize(("status", "words"), [(401, "OPENAI_API_KEY"), (404, "/v1"), (404, "--teacher_model")])
def test_what_cannot_pass_is_told_at_once_without_the_key(status, words, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with chat_server(lambda body, times: Reply(status, "wrong: sk-secret")) as asked, \
            pytest.raises(ValueError, match=f"answers {status}") as fault:
        teacher(asked.url)
    assert words in str(fault.value) and "sk-secret" not in str(fault.value)
    assert len(asked.requests) == 1


@pytest.mark.parametrize("key", ["sk-sec\nret", "sk-s\u00e9cret"])
def test_a_key_that_no_header_carries_is_not_shown(key, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ValueError, match="OPENAI_API_KEY") as fault:
        teacher("http://127.0.0.1:9/v1")
    assert "sk-s" not in str(fault.value)


def test_a_template_without_a_system_role_gets_the_two_merged():
    def reply(body, times):
        return Reply(400, "roles must alternate") if body["messages"][0]["role"] == "system" else echo(body, times)

    with chat_server(reply) as asked:
        assert dict(teacher(asked.url).answers(QUESTIONS[:1])) == {0: "answer to q0"}
    assert asked.requests[-1][0]["messages"] == [
        {"role": "user", "content": f"{SYSTEM}\n\nBackground:\ndocument 0\n\nQuestion: q0"}]


def test_a_server_that_knows_no_template_settings_gets_none():
    def reply(body, times):
        return Reply(422, "unexpected field") if "chat_template_kwargs" in body else echo(body, times)

    with chat_server(reply) as asked:
        assert dict(teacher(asked.url).answers(QUESTIONS[:1])) == {0: "answer to q0"}
    assert asked.requests[-1][0]["messages"][0]["role"] == "system"


def test_what_no_form_cures_is_told_at_the_start():
    with chat_server(lambda body, times: Reply(400, "no such thing")) as asked, \
            pytest.raises(ValueError, match=r"answers 400 \(no such thing\)"):
        teacher(asked.url)
    assert len(asked.requests) == len(server.FORMS)


def test_pauses_grow_and_are_never_shorter_than_the_server_asks():
    assert all(30 <= server._pause(Trouble("", 429, 30.0), attempt) <= 33 for attempt in range(9))
    assert all(0.005 * 2 ** attempt <= server._pause(Trouble("", 500), attempt) <= 0.01 * 2 ** attempt
               for attempt in range(9))
    assert server._pause(Trouble("", 500), 50) <= server.LONGEST_PAUSE_SECONDS


@pytest.mark.parametrize(("header", "seconds"), [
    (None, None), ("3", 3.0), ("0.5", 0.5), ("-1", 0.0), ("soon", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0)])
def test_retry_after_is_seconds_or_a_date(header, seconds):
    assert _seconds(header) == seconds


def test_retry_after_may_be_a_date_to_come():
    assert 3000 < _seconds(email.utils.formatdate(time.time() + 3600, usegmt=True)) <= 3600


def test_a_pause_beyond_the_patience_is_not_waited_for():
    quota = Reply(429, "quota", {"Retry-After": "3600"})
    with chat_server(all_but_the_first(lambda body, times: quota)) as asked, \
            pytest.raises(ValueError, match="answers 429"):
        list(teacher(asked.url).answers(QUESTIONS[:1]))
    assert len(asked.requests) == 2


@pytest.fixture
def transformers_serve(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path / "serve.log").open("w")
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(EMBEDDED_FOLDER), "--device", "cpu",
               "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    try:
        for _ in range(1200):
            try:
                httpx2.get(f"http://127.0.0.1:{port}/health")
                break
            except httpx2.TransportError:
                assert process.poll() is None, (tmp_path / "serve.log").read_text()
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def test_a_real_server_gives_the_answers_of_the_local_model(transformers_serve):
    questions = [(record.query, record.documents) for record in synthetic_records(8, seed=5, split="eval")]
    questions.append(("Who wrote nothing?", []))
    local = load_teacher(TeacherConfig(teacher_model="embedded", teacher_batch_size=4, teacher_max_new_tokens=12))
    remote = load_teacher(TeacherConfig(teacher_model=str(EMBEDDED_FOLDER), teacher_url=transformers_serve,
                                        teacher_concurrency=3, teacher_max_new_tokens=12))
    assert dict(remote.answers(questions)) == dict(local.answers(questions))
    assert remote.num_prompt_tokens == local.num_prompt_tokens
