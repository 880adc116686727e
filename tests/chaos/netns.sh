#!/usr/bin/env bash
# Three hosts made of network namespaces and a bridge: a learner's host, one with simulators and shards, one with
# simulators alone. Real simulators, shards and sampling over them; then the link of the third host is cut.
#
#   tests/chaos/netns.sh check          can this machine do it? Exit code 77 and one line if not
#   tests/chaos/netns.sh run [PYTHON]   do it; prints one JSON object
#
# Needs root and iproute2. Makes only things named ec<pid>..., and takes them away again however it ends.
set -euo pipefail
cd "$(dirname "$0")/../.."

tag="ec$$"
net="10.213.$((RANDOM % 200 + 20))"
hosts=(1 2 3)
labels=("role=learn" "role=sim,store=yes" "role=sim")

refuse() {
  echo "network namespaces: $1" >&2
  exit 77
}

check() {
  [ "$(id -u)" -eq 0 ] || refuse "only root can make them; run as root"
  command -v ip > /dev/null || refuse "there is no 'ip' command; install iproute2"
  ip netns add "$tag-try" 2> /dev/null || refuse "'ip netns add' is refused here; a container needs CAP_SYS_ADMIN"
  local bridge=0
  ip link add "${tag}t" type bridge 2> /dev/null && ip link del "${tag}t" || bridge=$?
  ip netns del "$tag-try"
  [ "$bridge" -eq 0 ] || refuse "'ip link add type bridge' is refused here; a container needs CAP_NET_ADMIN"
}

cleanup() {
  for host in "${hosts[@]}"; do
    # the namespace is ours, and so is everything in it
    for pid in $(ip netns pids "$tag-$host" 2> /dev/null); do kill -9 "$pid" 2> /dev/null || true; done
    ip netns del "$tag-$host" 2> /dev/null || true
    ip link del "$tag-v$host" 2> /dev/null || true
  done
  ip link del "$tag" 2> /dev/null || true
  rm -rf "$folder"
}

connect_hosts() {
  ip link add "$tag" type bridge
  ip link set "$tag" up
  for host in "${hosts[@]}"; do
    ip netns add "$tag-$host"
    ip link add "$tag-v$host" type veth peer name eth0 netns "$tag-$host"
    ip link set "$tag-v$host" master "$tag" up
    ip -n "$tag-$host" addr add "$net.$host/24" dev eth0
    ip -n "$tag-$host" link set eth0 up
    ip -n "$tag-$host" link set lo up
  done
}

on() { # on HOST COMMAND...
  ip netns exec "$tag-$1" "${@:2}"
}

start_ray() {
  local options=(--disable-usage-stats --object-store-memory 200000000)
  for host in "${hosts[@]}"; do
    local join=(--address "$net.1:6379" --num-cpus 2)
    [ "$host" -eq 1 ] && join=(--head --port 6379 --include-dashboard false --num-cpus 0)
    on "$host" "$python" -m ray.scripts.scripts start "${join[@]}" "${options[@]}" \
      --node-ip-address "$net.$host" --labels "${labels[$((host - 1))]}" < /dev/null > "$folder/ray-$host.txt" 2>&1 \
      || { cat "$folder/ray-$host.txt" >&2; exit 1; }
  done
}

run() {
  python="${1:-.venv/bin/python}"
  folder="$(mktemp -d /tmp/"$tag"XXX)"
  trap cleanup EXIT
  export RAY_TMPDIR="$folder" RAY_AUTH_MODE=disabled OMP_NUM_THREADS=1 PYTHONPATH="$PWD"
  # a host that does not answer is known within seconds; a busy machine may take its time to start one
  export RAY_health_check_initial_delay_ms=10000 RAY_health_check_period_ms=1000
  export RAY_health_check_timeout_ms=2000 RAY_health_check_failure_threshold=5
  connect_hosts
  start_ray
  mkdir "$folder/line"
  RAY_ADDRESS="$net.1:6379" on 1 "$python" -m benchmarks.chaos.hosts "$folder/line" > "$folder/out.json" &
  local driver=$!
  while [ ! -f "$folder/line/cut" ]; do
    kill -0 "$driver" 2> /dev/null || { wait "$driver"; exit 1; }
    sleep 0.2
  done
  local victim
  victim="$(cat "$folder/line/cut")"
  ip link set "$tag-v${victim##*.}" down
  rm "$folder/line/cut"
  wait "$driver"
  cat "$folder/out.json"
}

case "${1:-}" in
  check) check ;;
  run)
    check
    run "${@:2}"
    ;;
  *)
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
