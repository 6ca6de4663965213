#!/usr/bin/env bash
# A Flink to try on this machine: Beam's job server with an embedded Flink, or a
# standalone cluster of one JobManager and two TaskManagers of one core and slot each.
#
#   flink.sh prepare              fetch Flink (Maven) and build Beam's boot program, into build/flink
#   flink.sh server DIR           start the embedded job server
#   flink.sh cluster DIR          start the cluster and a job server for it
#   flink.sh taskmanager DIR N    start TaskManager N (again)
#   flink.sh jobserver DIR        start the cluster's job server (again)
#   flink.sh endpoint DIR         print the job server's address
#   flink.sh stop DIR             stop what was started
#
# DIR gets configuration, logs and process ids (NAME.pid). Jobs then run with
#
#   advseg label --runner flink --endpoint $(flink.sh endpoint DIR) --environment_type PROCESS \
#     --environment_config '{"command":"'$PWD'/scripts/flink/boot.sh"}' --parallelism 2 ...
#
# or, with the embedded server, --environment_type LOOPBACK.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$here/../../build/flink
opens=()
for p in lang util util.concurrent net io nio text time; do opens+=(--add-opens "java.base/java.$p=ALL-UNNAMED"); done

usage() { sed -n '2,/^set/p' "$0" | grep '^#' | cut -c3- >&2; exit 2; }

prepare() {
  mvn -q -B -f "$here/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
    -DoutputDirectory="$build/lib"
  (cd "$here" && CGO_ENABLED=0 go build -o "$build/boot" github.com/apache/beam/sdks/v2/go/container)
}

# free prints so many free ports. Somebody else may take one before it is used; then
# the start fails and says so in its log.
free() { python3 - "$1" <<'PY'
import socket, sys
held = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in held:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in held))
PY
}

# run NAME HEAP ARGUMENTS... starts a Java process of the cluster. What it and its
# workers keep for a while lies below DIR.
run() {
  local name=$1 heap=$2
  shift 2
  TMPDIR=$dir/tmp nohup java "-Xmx$heap" -XX:+UseSerialGC "${opens[@]}" -cp "$build/lib/*" "$@" >"$dir/$name.log" 2>&1 &
  echo $! >"$dir/$name.pid"
}

# await NAME PORT waits until a process answers, a minute at most.
await() {
  for _ in $(seq 240); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null; then return; fi
    if ! kill -0 "$(cat "$dir/$1.pid")" 2>/dev/null; then break; fi
    sleep 0.25
  done
  echo "flink.sh: $1 did not start; the end of $dir/$1.log:" >&2
  tail -n 20 "$dir/$1.log" >&2
  exit 1
}

configure() {
  mkdir -p "$dir/conf" "$dir/tmp"
  read -r rpc rest job < <(free 3)
  echo "$job" >"$dir/job.port"
  echo "$rest" >"$dir/rest.port"
  cat >"$dir/conf/flink-conf.yaml" <<CONF
jobmanager.rpc.address: 127.0.0.1
jobmanager.rpc.port: $rpc
rest.address: 127.0.0.1
rest.bind-address: 127.0.0.1
rest.port: $rest
taskmanager.host: 127.0.0.1
taskmanager.numberOfTaskSlots: 1
restart-strategy.type: failure-rate
restart-strategy.failure-rate.max-failures-per-interval: 10
restart-strategy.failure-rate.failure-rate-interval: 5 min
restart-strategy.failure-rate.delay: 1 s
heartbeat.interval: 1000
heartbeat.timeout: 8000
io.tmp.dirs: $dir/tmp
CONF
}

# jobserver MASTER starts the job server of an embedded Flink, [local], or of a cluster.
jobserver() {
  run jobserver 400m org.apache.beam.runners.flink.FlinkJobServerDriver --job-host=127.0.0.1 --job-port="$(cat "$dir/job.port")" \
    --artifact-port=0 --expansion-port=0 --artifacts-dir="$dir/artifacts" --flink-conf-dir="$dir/conf" --flink-master="$1"
  await jobserver "$(cat "$dir/job.port")"
}

taskmanager() {
  run "taskmanager-$1" 428m org.apache.flink.runtime.taskexecutor.TaskManagerRunner -c "$dir/conf" -D taskmanager.cpu.cores=1 \
    -D taskmanager.memory.task.heap.size=300m -D taskmanager.memory.task.off-heap.size=64m \
    -D taskmanager.memory.framework.heap.size=128m -D taskmanager.memory.framework.off-heap.size=128m \
    -D taskmanager.memory.managed.size=100m -D taskmanager.memory.network.min=64m -D taskmanager.memory.network.max=64m \
    -D taskmanager.memory.jvm-metaspace.size=256m -D taskmanager.memory.jvm-overhead.min=192m -D taskmanager.memory.jvm-overhead.max=192m
}

# stop ends TaskManagers last: they end their workers when they are asked to.
stop() {
  for name in jobserver jobmanager taskmanager-1 taskmanager-2; do
    pid=$(cat "$dir/$name.pid" 2>/dev/null) || continue
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 40); do kill -0 "$pid" 2>/dev/null || break; sleep 0.25; done
    kill -9 "$pid" 2>/dev/null || true
    rm -f "$dir/$name.pid"
  done
}

[ $# -ge 1 ] || usage
command=$1
if [ "$command" = prepare ]; then prepare; exit; fi
[ $# -ge 2 ] || usage
mkdir -p "$2"
dir=$(cd "$2" && pwd)
case $command in
  server)
    configure
    jobserver '[local]'
    ;;
  cluster)
    configure
    run jobmanager 400m org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint -c "$dir/conf"
    await jobmanager "$(cat "$dir/rest.port")"
    taskmanager 1
    taskmanager 2
    jobserver "127.0.0.1:$(cat "$dir/rest.port")"
    ;;
  jobserver) jobserver "127.0.0.1:$(cat "$dir/rest.port")" ;;
  taskmanager) taskmanager "${3:?the number of the TaskManager}" ;;
  endpoint) echo "127.0.0.1:$(cat "$dir/job.port")" ;;
  stop) stop ;;
  *) usage ;;
esac
