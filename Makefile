# The checks that a change must pass, as CI runs them; their parts; docs/API.md from the docstrings; the versions of the libraries.
.PHONY: check style test api lock newest audit
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
# Known vulnerabilities of the locked versions: asks a database on the network, so it is no part of check.
audit:
	bash .ci/audit
