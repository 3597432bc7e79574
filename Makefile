# The checks that a change must pass, as CI runs them; their parts; and the versions of the libraries.
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
