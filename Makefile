# The commands of this project. `make` alone lists them.

DB ?=
DJANGO ?=
ARGS ?=
BENCH_ARGS ?= create
DATABASE_URL ?=
export DATABASE_URL

# The extra that the demo's database needs, by the URL's scheme.
scheme := $(firstword $(subst :, ,$(DATABASE_URL)))
demo_extra := $(if $(filter postgres%,$(scheme)),[postgres],$(if $(filter mysql%,$(scheme)),[mysql]))

.PHONY: help test test-cluster lint format test-next test-django demo bench clean

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

test: ## all tests on all databases; DB=sqlite|postgres|mysql for one, ARGS="-k name" for pytest
	@sh tools/venv.sh .venv -e '.[postgres]' --group dev
	@$(if $(filter-out mysql,$(DB)),,sh tools/venv.sh .venv -e '.[mysql]' || \
		echo 'mysqlclient could not be installed' >&2)
	@.venv/bin/python -m tools.suite $(addprefix --db ,$(DB)) -- $(ARGS)

test-cluster: ## clusters whose workers, schedulers, brokers and coordinators are killed; DB, ARGS as for test
	@sh tools/venv.sh .venv -e '.[postgres]' --group dev
	@$(if $(filter-out mysql,$(DB)),,sh tools/venv.sh .venv -e '.[mysql]' || \
		echo 'mysqlclient could not be installed' >&2)
	@.venv/bin/python -m tools.suite $(addprefix --db ,$(DB)) -- tests/cluster $(ARGS)

lint: ## ruff, mypy and import-linter
	@sh tools/venv.sh .venv -e '.[postgres]' --group dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

format: ## let ruff put the code in order
	@sh tools/venv.sh .venv -e '.[postgres]' --group dev
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

test-next: ## the tests on the newest Django, in a Debian 13 of its own (needs Debian and root)
	@bash tools/next.sh $(ARGS)

test-django: ## Django's own tests inside coalesce(), against a plain run; DB=sqlite|postgres, DJANGO=6.1
ifeq ($(DJANGO),)
	@sh tools/venv.sh .venv-django -e '.[postgres]' -r tests/django/requirements.txt
	@.venv-django/bin/python -m tools.django_suite $(addprefix --db ,$(DB)) $(ARGS)
else
	@DJANGO="$(DJANGO)" PROGRAM=tools.django_suite bash tools/next.sh $(addprefix --db ,$(DB)) $(ARGS)
endif

demo: ## import real data; DATABASE_URL=postgres://… for another database than SQLite
	@sh tools/venv.sh .venv-demo -e '.$(demo_extra)' -r examples/atlas/requirements.txt
	@.venv-demo/bin/python examples/atlas/demo.py $(ARGS)

bench: ## the benchmarks, on private servers; BENCH_ARGS="overhead --rows 1000" for others
	@sh tools/venv.sh .venv-bench -e '.[postgres,mysql]' -r benchmarks/requirements.txt
	@.venv-bench/bin/python tools/servers.py run --durable -- \
		.venv-bench/bin/python -m benchmarks $(BENCH_ARGS)

clean: ## remove what the other commands made here
	rm -rf .venv .venv-* build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
