# What a change must pass, as CI runs it; its parts; and what keeps the libraries' versions.
.PHONY: check style test lock newest
check:
	bash .ci/run
style:
	bash setup_env.sh ruff check
test:
	bash setup_env.sh python -m pytest -n auto
lock:
	bash .ci/lock
newest:
	bash .ci/newest
