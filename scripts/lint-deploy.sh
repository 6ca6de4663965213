#!/usr/bin/env bash
# Checks what the program is deployed with: Dockerfiles, schedules, the template's
# script. A check whose tool cannot be had here is skipped and says so.
#
#   scripts/lint-deploy.sh DIR    tools that are not installed go to DIR
set -euo pipefail
cd "$(dirname "$0")/.."
tools=${1:?usage: scripts/lint-deploy.sh DIR}
mkdir -p "$tools"
tools=$(realpath "$tools")

failed=0
passed() { printf 'passed   %s\n' "$*"; }
skipped() { printf 'SKIPPED  %s\n' "$*"; }
fail() { printf 'FAILED   %s\n' "$*"; failed=1; }
check() { # NAME COMMAND...: the command's output only if it fails
  local name=$1 out; shift
  if out=$("$@" 2>&1); then passed "$name"; else printf '%s\n' "$out"; fail "$name"; fi
}

debian() { # PACKAGE: installs it, where that may be done
  [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null || return
  { apt-get update -q && apt-get install -qy --no-install-recommends "$1"; } >"$tools/apt.log" 2>&1
}
have() { # COMMAND PACKAGE: the command is there, or can be installed
  command -v "$1" >/dev/null || { debian "$2" && command -v "$1" >/dev/null; }
}

# python NAME REQUIREMENTS: makes the environment $tools/NAME, once for each content of the file.
python() {
  local env=$tools/$1 sum
  sum=$(cksum <"$2")
  [[ -f $env/ready && $(<"$env/ready") == "$sum" ]] && return
  rm -rf "$env"
  python3 -m venv "$env" >"$tools/$1.log" 2>&1 || { debian python3-venv; python3 -m venv "$env" >>"$tools/$1.log" 2>&1; } || return
  "$env/bin/pip" install --quiet --disable-pip-version-check -r "$2" >>"$tools/$1.log" 2>&1 || return
  printf '%s' "$sum" >"$env/ready"
}

dockerfiles=(scripts/container/Dockerfile scripts/dataflow/Dockerfile)
scripts=(scripts/*.sh scripts/dataflow/*.sh scripts/flink/*.sh scripts/ablation/*.sh)
units=scripts/schedule/systemd

if python linters scripts/lint-deploy.txt; then
  check "Dockerfiles: hadolint" "$tools/linters/bin/hadolint" "${dockerfiles[@]}"
  check "CronJob: Kubernetes schemas" "$tools/linters/bin/kubernetes-validate" --strict scripts/schedule/kubernetes/cronjob.yaml
else
  skipped "Dockerfiles and CronJob: hadolint and kubernetes-validate cannot be installed, see $tools/linters.log"
fi

operator=org.apache.flink:flink-kubernetes-operator-api:1.10.0
maven() { mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.6.1:"$1" -Dartifact=$operator "${@:2}" >"$tools/maven.log" 2>&1; }
if [[ -x $tools/linters/bin/kubernetes-validate ]] && have mvn maven &&
  maven get -Dtransitive=false && maven copy -DoutputDirectory="$tools/operator"; then
  check "Flink on Kubernetes: the operator's schema" "$tools/linters/bin/python" scripts/flink/check.py "$tools"/operator/*.jar
else
  skipped "Flink on Kubernetes: kubernetes-validate or the operator's schema cannot be had, see $tools/maven.log"
fi

if have shellcheck shellcheck; then
  check "scripts: shellcheck" shellcheck "${scripts[@]}" .ci/run
else
  skipped "scripts: shellcheck cannot be installed"
fi

if have systemd-analyze systemd; then
  # The program need not be installed where its service starts it.
  sed 's#^ExecStart=/usr/local/bin/advseg#ExecStart=/bin/true#' "$units/advseg-nightly.service" >"$tools/advseg-nightly.service"
  cp "$units/advseg-nightly.timer" "$tools/"
  # Warnings are printed only, they do not change the exit code.
  if out=$(systemd-analyze verify --man=no "$tools/advseg-nightly.service" "$tools/advseg-nightly.timer" 2>&1) && [[ -z $out ]]; then
    passed "service and timer: systemd-analyze verify"
  else
    printf '%s\n' "$out"
    fail "service and timer: systemd-analyze verify"
  fi
  check "service: exposed at most 1.5 of 10" systemd-analyze security --offline=true --threshold=15 "$tools/advseg-nightly.service"
else
  skipped "service and timer: systemd-analyze cannot be installed"
fi

if python airflow scripts/schedule/airflow/constraints.txt; then
  check "Airflow DAG and cron expressions" env AIRFLOW_HOME="$tools/airflow-home" AIRFLOW__CORE__LOAD_EXAMPLES=False \
    "$tools/airflow/bin/python" scripts/schedule/check.py
else
  skipped "Airflow DAG and cron expressions: Airflow cannot be installed, see $tools/airflow.log"
fi

if command -v docker >/dev/null && docker info >/dev/null 2>&1; then
  for target in advseg worker; do
    check "image $target" docker build -q -f scripts/container/Dockerfile --target "$target" -t "$target:lint" .
  done
  check "image advseg runs" docker run --rm advseg:lint version --json
else
  skipped "images: there is no container engine"
fi
exit $failed
