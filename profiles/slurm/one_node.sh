#!/usr/bin/env bash
# A SLURM cluster of one node on this machine, to try profiles/slurm on: Debian or Ubuntu, as root.
set -euo pipefail
if ! command -v slurmctld > /dev/null; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge
fi
node=$(hostname -s)
memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
mkdir -p /etc/slurm /run/munge /var/log/munge /var/spool/slurm-one-node
chown munge:munge /run/munge /var/log/munge /etc/munge/munge.key
cat > /etc/slurm/slurm.conf << END
ClusterName=one
SlurmctldHost=$node
SlurmUser=root
StateSaveLocation=/var/spool/slurm-one-node/state
SlurmdSpoolDir=/var/spool/slurm-one-node/d
SlurmctldPidFile=/run/slurmctld-one.pid
SlurmdPidFile=/run/slurmd-one.pid
SlurmctldLogFile=/var/log/slurmctld-one.log
SlurmdLogFile=/var/log/slurmd-one.log
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/none
ReturnToService=2
MinJobAge=3600
PropagatePrioProcess=1
NodeName=$node CPUs=$(nproc) RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=$node Default=YES MaxTime=INFINITE State=UP
END
pgrep munged > /dev/null || su -s /bin/sh munge -c munged
pgrep slurmctld > /dev/null || slurmctld
pgrep slurmd > /dev/null || slurmd
sleep 3
scontrol update NodeName="$node" State=RESUME 2> /dev/null || true
sinfo
