#!/bin/bash
# A SLURM of one node on this machine, in a temporary folder, and a command that runs on it:
#
#     tests/cluster/slurm.sh python -m tests.cluster.compare
#
# It needs Debian's packages slurm-wlm and munge, no root, and leaves nothing behind: jobs, munged, slurmctld and slurmd are ended
# whatever becomes of the command. The partition is called "debug" and has the machine's cores.
set -euo pipefail
folder=$(mktemp -d /tmp/slurm.XXXXXX); user=$(id -un); host=$(hostname -s); cores=$(nproc --all)
chmod 755 "$folder"; mkdir "$folder"/{munge,state,spool}; chmod 711 "$folder/munge"
stop() {
    code=$?
    set +e
    if [ "$code" != 0 ]; then tail -n 40 "$folder"/*.log >&2; fi
    scancel --quiet --user="$user"
    for _ in $(seq 30); do [ -n "$(squeue --noheader --user="$user" 2> /dev/null)" ] || break; sleep 1; done
    for name in slurmd slurmctld munged; do [ -f "$folder/$name.pid" ] && kill "$(cat "$folder/$name.pid")" 2> /dev/null; done
    sleep 1
    rm -rf "$folder"
}
trap stop EXIT

dd if=/dev/urandom of="$folder/munge/key" bs=128 count=1 2> /dev/null; chmod 600 "$folder/munge/key"
cat > "$folder/slurm.conf" << END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$user
SlurmdUser=$user
SlurmctldPort=$((20000 + RANDOM % 10000))
SlurmdPort=$((30000 + RANDOM % 10000))
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CryptoType=crypto/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=2
JobRequeue=1
KillWait=5
MinJobAge=30
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores State=UNKNOWN
PartitionName=debug Nodes=$host Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
END
export SLURM_CONF=$folder/slurm.conf
munged --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munge/seed" --force
slurmctld; slurmd
for _ in $(seq 60); do
    if sinfo --noheader --format=%T 2> /dev/null | grep -q idle; then break; fi
    sleep 1
done
sinfo
"$@"
