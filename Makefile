# The checks that a change must pass, as CI runs them; their parts; docs/API.md from the docstrings; the versions of the libraries.
.PHONY: check style test api lock newest
check:
	bash .ci/run
style:
	bash setup_env.sh ruff check
test:
	bash setup_env.sh python -m pytest -n auto
api:
	bash setup_env.sh python .ci/api
lock:
	bash .ci/lock
newest:
	bash .ci/newest
