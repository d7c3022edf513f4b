#!/usr/bin/env bash
# The study of benchmarks/study.py through SLURM on this one machine.
#   python benchmarks/study.py OUT --only serial && benchmarks/slurm.sh OUT     the command, and its bits against those of one process
#   benchmarks/slurm.sh OUT --rounds 3                                          the speed-up; what follows OUT are options of study.py
# Needs slurm-wlm and munge (Debian: apt-get install slurm-wlm munge) and the extra `slurm`, and runs as root: the daemons are started
# with keys, configuration and state of their own in a temporary folder, on ports of their own, and stopped in the end.
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: benchmarks/slurm.sh OUT [--rounds N] [--measurements M]"; exit 2; }
PYTHON=${PYTHON:-python}
HERE=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
OUT=$(cd "$1" && pwd)
shift
T=$(mktemp -d)
chmod 755 "$T"
export PYTHONPATH=$HERE${PYTHONPATH:+:$PYTHONPATH} OMP_NUM_THREADS=1 SLURM_CONF=$T/slurm.conf

stop() {
    for name in slurmd slurmctld munged; do
        [ -f "$T/$name.pid" ] && kill "$(cat "$T/$name.pid")" 2> /dev/null || true
    done
    sleep 1
    rm -rf "$T"
}
trap stop EXIT

dd if=/dev/urandom of="$T/key" bs=1024 count=1 2> /dev/null
chmod 600 "$T/key"
munged --force --key-file="$T/key" --socket="$T/munge" --pid-file="$T/munged.pid" --log-file="$T/munged.log" --seed-file="$T/seed"

NAME=$(hostname -s)
cat > "$T/slurm.conf" << CONF
ClusterName=one
SlurmctldHost=$NAME(127.0.0.1)
SlurmctldPort=17817
SlurmdPort=17818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$T/munge
CredType=cred/munge
StateSaveLocation=$T/state
SlurmdSpoolDir=$T/spool
SlurmctldPidFile=$T/slurmctld.pid
SlurmdPidFile=$T/slurmd.pid
SlurmctldLogFile=$T/slurmctld.log
SlurmdLogFile=$T/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
NodeName=$NAME NodeAddr=127.0.0.1 CPUs=$(getconf _NPROCESSORS_ONLN) RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
echo "CgroupPlugin=autodetect" > "$T/cgroup.conf"
mkdir "$T/state" "$T/spool"
slurmctld -c
slurmd || { cat "$T/slurmd.log"; exit 1; }
for _ in $(seq 60); do
    sinfo -h -o %T 2> /dev/null | grep -q idle && break
    sleep 1
done
sinfo || { tail -5 "$T"/*.log; exit 1; }
sinfo -h -o %T | grep -q idle || { tail -5 "$T"/*.log; exit 1; }

if [ $# -gt 0 ]; then
    "$PYTHON" "$HERE/benchmarks/study.py" "$OUT" --only slurm "$@"
    exit
fi
rm -rf "$OUT/slurm"
"$PYTHON" -c "from posteriori.cli import main; main()" run "$OUT/study.yaml" --out "$OUT/slurm" --slurm --quiet > "$OUT/slurm.txt"
"$PYTHON" "$HERE/benchmarks/study.py" "$OUT" --against "$OUT/slurm"
