#!/usr/bin/env bash
# A real Slurm on this machine, for tests: one controller and four nodes of 16 declared CPUs and 8 pretended GPUs.
#
#   cluster.sh up DIR [accounting]     bring it up with its files in DIR (with slurmdbd and MariaDB), print its SLURM_CONF
#   cluster.sh down DIR                end its jobs and daemons, remove DIR
#   cluster.sh crash_node DIR NODE     kill a node: its daemon, its steps and their tasks, at once
#   cluster.sh start_node DIR NODE     bring it back
#   cluster.sh stop_controller DIR     stop slurmctld; running jobs go on
#   cluster.sh start_controller DIR    start it again with its saved state
#
# Without root's packages and node names it says what is missing; ARVIS_INSTALL_SLURM=1 lets it install Debian's packages
# and add the nodes to /etc/hosts, which `down` takes out again. CLUSTER_PORT (default 16800): the first of its 20 ports;
# clusters with others can be up at the same time.
set -Eeuo pipefail
trap 'echo "cluster.sh: line $LINENO failed: $BASH_COMMAND; logs are in ${DIR:-DIR}/log" >&2' ERR

HERE=$(cd "$(dirname "$0")" && pwd)
NUM_NODES=4
GPUS_PER_NODE=8
PORT=${CLUSTER_PORT:-16800}
CONTROLLER_PORT=$((PORT + 1)) DBD_PORT=$((PORT + 2)) SQL_PORT=$((PORT + 3)) FIRST_NODE_PORT=$((PORT + 11))
HOSTS_MARK='# arvis_scale test cluster'
# Debian puts the daemons there, which is not on every user's PATH.
PATH=$PATH:/usr/sbin:/sbin

fail() { echo "$*" >&2; exit 2; }

main() {
  [ $# -ge 2 ] || fail "usage: cluster.sh up|down|crash_node|start_node|stop_controller|start_controller DIR [ARGUMENT]"
  local verb=$1
  DIR=$2
  case $DIR in /*) ;; *) DIR=$PWD/$DIR ;; esac
  case $DIR in *[!A-Za-z0-9/._-]*) fail "$DIR: Slurm's own files must lie at a path of letters, digits, . _ and -" ;; esac
  export SLURM_CONF=$DIR/slurm.conf
  case $verb in
    up | down | crash_node | start_node | stop_controller | start_controller) "$verb" "${3:-}" ;;
    *) fail "unknown verb $verb" ;;
  esac
}

# --- up -----------------------------------------------------------------------------------------------------------------

up() {
  local accounting=$1
  require_packages "$accounting"
  mkdir -p "$DIR"/{state,spool,log,pid,dev}
  chmod 755 "$DIR" # the database has a user of its own
  name_nodes
  start_munge
  local accounting_lines='AccountingStorageType=accounting_storage/none'
  if [ "$accounting" = accounting ]; then
    start_database
    accounting_lines="AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n"
    accounting_lines+="AccountingStoragePort=$DBD_PORT\nAccountingStorageTRES=gres/gpu"
  fi
  write_configuration "$accounting_lines"
  if [ "$accounting" = accounting ]; then start_accounting; fi
  start_controller
  for node in $(nodes); do mkdir -p "$DIR/spool/$node" && start_node "$node"; done
  wait_for "its nodes" all_idle
  echo "export SLURM_CONF=$SLURM_CONF"
}

nodes() { for number in $(seq $NUM_NODES); do echo "testnode$number"; done; }

require_packages() {
  local wanted=(slurmctld slurmd squeue munged) packages=(slurmctld slurmd slurm-client munge) missing=()
  if [ "$1" = accounting ]; then
    wanted+=(slurmdbd mariadbd)
    packages+=(slurmdbd mariadb-server)
  fi
  for command in "${wanted[@]}"; do command -v "$command" > /dev/null || missing+=("$command"); done
  [ ${#missing[@]} = 0 ] && return
  [ "${ARVIS_INSTALL_SLURM:-}" = 1 ] ||
    fail "${missing[*]} not found: ARVIS_INSTALL_SLURM=1 installs Slurm with apt-get, as root"
  [ "$(id -u)" = 0 ] || fail "${missing[*]} not found, and only root can install Slurm"
  install_packages "${packages[@]}"
}

install_packages() {
  local log=$DIR/log/apt-get.log policy=/usr/sbin/policy-rc.d ours=no
  mkdir -p "$DIR/log"
  # Packages start their daemons when they are installed, unless this file says that they must not.
  if [ ! -e $policy ]; then printf '#!/bin/sh\nexit 101\n' > $policy && chmod 755 $policy && ours=yes; fi
  local status=0
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } \
    > $log 2>&1 < /dev/null || status=$?
  if [ $ours = yes ]; then rm -f $policy; fi
  [ $status = 0 ] || fail "apt-get install $* failed: $(tail -1 $log) (all of it in $log)"
}

name_nodes() {
  local first
  first=$(nodes | sed -n 1p)
  getent hosts "$first" > /dev/null && return
  [ "${ARVIS_INSTALL_SLURM:-}" = 1 ] || fail "$first has no address: ARVIS_INSTALL_SLURM=1 adds the nodes to /etc/hosts"
  for node in $(nodes); do echo "127.0.0.1 $node $HOSTS_MARK"; done >> /etc/hosts
  touch "$DIR/named_nodes"
}

start_munge() {
  munge_answers && return
  [ "$(id -u)" = 0 ] || fail "munge does not answer, and only root can start it"
  install -d -o munge -g munge -m 755 /run/munge
  install -d -o munge -g munge -m 700 /etc/munge /var/log/munge
  install -d -o munge -g munge -m 711 /var/lib/munge
  [ -s /etc/munge/munge.key ] || runuser -u munge -- /usr/sbin/mungekey --create
  runuser -u munge -- /usr/sbin/munged
  cp /run/munge/munged.pid "$DIR/pid/munged"
  wait_for munge munge_answers
}

munge_answers() { munge -n 2> /dev/null | unmunge > /dev/null 2>&1; }

write_configuration() {
  local last_port=$((FIRST_NODE_PORT + NUM_NODES - 1)) host user
  host=$(hostname -s) user=$(id -un)
  sed -e "s#@DIR@#$DIR#g; s#@HOST@#$host#g; s#@USER@#$user#g; s#@CONTROLLER_PORT@#$CONTROLLER_PORT#" \
    -e "s#@NODES@#testnode[1-$NUM_NODES]#; s#@NODE_PORTS@#$FIRST_NODE_PORT-$last_port#; s#@GPUS@#$GPUS_PER_NODE#" \
    -e "s#@ACCOUNTING@#$1#" "$HERE/slurm.conf.in" > "$SLURM_CONF"
  # A GPU must be a device file, or the node is invalid: these are copies of /dev/null.
  for gpu in $(seq 0 $((GPUS_PER_NODE - 1))); do [ -c "$DIR/dev/gpu$gpu" ] || mknod -m 666 "$DIR/dev/gpu$gpu" c 1 3; done
  echo "NodeName=testnode[1-$NUM_NODES] Name=gpu File=$DIR/dev/gpu[0-$((GPUS_PER_NODE - 1))]" > "$DIR/gres.conf"
}

start_database() {
  local socket=$DIR/mysql/socket
  if [ ! -d "$DIR/mysql/mysql" ]; then
    mkdir -p "$DIR/mysql" && chown mysql: "$DIR/mysql"
    mariadb-install-db --no-defaults --user=mysql --datadir="$DIR/mysql" --auth-root-authentication-method=normal \
      --skip-test-db > "$DIR/log/mariadb-install-db.log" 2>&1
  fi
  in_background mariadbd mariadbd --no-defaults --user=mysql --datadir="$DIR/mysql" --socket="$socket" \
    --pid-file="$DIR/mysql/pid" --bind-address=127.0.0.1 --port=$SQL_PORT --innodb-buffer-pool-size=64M \
    --innodb-flush-log-at-trx-commit=0 --innodb-lock-wait-timeout=900 --performance-schema=OFF
  wait_for MariaDB mariadb-admin --no-defaults -uroot -S "$socket" ping
  for host in 127.0.0.1 localhost; do
    echo "CREATE USER IF NOT EXISTS slurm@'$host' IDENTIFIED BY 'slurm'; GRANT ALL ON slurm_acct_db.* TO slurm@'$host';"
  done | mariadb --no-defaults -uroot -S "$socket"
}

start_accounting() {
  (umask 077 && cat > "$DIR/slurmdbd.conf") << CONF
AuthType=auth/munge
DbdHost=$(hostname -s)
DbdAddr=127.0.0.1
DbdPort=$DBD_PORT
SlurmUser=$(id -un)
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$SQL_PORT
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
LogFile=$DIR/log/slurmdbd.log
PidFile=$DIR/pid/slurmdbd
CONF
  in_background slurmdbd slurmdbd -D
  wait_for slurmdbd sacctmgr --noheader show cluster
  sacctmgr --immediate add cluster testcluster > "$DIR/log/sacctmgr.log" 2>&1
}

all_idle() { [ "$(sinfo --noheader --Node --partition=main --format=%T 2> /dev/null | grep -c '^idle$')" = $NUM_NODES ]; }

# --- one daemon ---------------------------------------------------------------------------------------------------------

start_controller() {
  slurmctld > "$DIR/log/slurmctld.out" 2>&1
  wait_for slurmctld controller_answers
}

controller_answers() { timeout 2 scontrol ping 2> /dev/null | grep -q ' is UP'; }

stop_controller() { stop "$DIR/pid/slurmctld" slurmctld; }

start_node() {
  # In a namespace of its own hostname(1) gives the node's name; only root may make one.
  if unshare --uts true 2> /dev/null; then
    unshare --uts bash -c 'hostname "$0" && exec slurmd -N "$0"' "$1" > "$DIR/log/$1.out" 2>&1
  else
    slurmd -N "$1" > "$DIR/log/$1.out" 2>&1
  fi
}

crash_node() {
  local tasks=() steps=() process parent
  for process in $(processes_with "SLURMD_NODENAME=$1"); do
    tasks+=("$process")
    parent=$(awk '/^PPid/ {print $2}' "/proc/$process/status" 2> /dev/null || true)
    if grep -qs '^slurmstepd' "/proc/${parent:-none}/comm"; then steps+=("$parent"); fi
  done
  kill -KILL "$(cat "$DIR/pid/$1")" "${steps[@]}" "${tasks[@]}" 2> /dev/null || true
  rm -f "$DIR/pid/$1"
}

# --- down ---------------------------------------------------------------------------------------------------------------

down() {
  [ -d "$DIR/pid" ] || return 0
  if controller_answers; then
    timeout 5 squeue --noheader --format=%A | sort -u | xargs -r timeout 5 scancel --signal=KILL --full 2> /dev/null || true
    timeout 5 squeue --noheader --format=%A | sort -u | xargs -r timeout 5 scancel 2> /dev/null || true
    for _ in $(seq 60); do [ -z "$(timeout 5 squeue --noheader)" ] && break; sleep 0.1; done
  fi
  for node in $(nodes); do stop "$DIR/pid/$node" slurmd; done
  processes_with "SLURM_CONF=$SLURM_CONF" slurmstepd | xargs -r kill -KILL 2> /dev/null || true
  stop "$DIR/pid/slurmctld" slurmctld
  stop "$DIR/pid/slurmdbd" slurmdbd
  stop "$DIR/pid/mariadbd" mariadbd
  stop "$DIR/pid/munged" munged
  if [ -e "$DIR/named_nodes" ]; then
    # A container's /etc/hosts is a mount: it can be written, but not replaced as sed -i does.
    local kept
    kept=$(grep -v "$HOSTS_MARK" /etc/hosts || true)
    echo "$kept" > /etc/hosts
  fi
  rm -rf "$DIR"
}

# --- processes ----------------------------------------------------------------------------------------------------------

in_background() {
  local name=$1
  shift
  setsid "$@" > "$DIR/log/$name.out" 2>&1 < /dev/null &
  echo $! > "$DIR/pid/$name"
}

# Stop the daemon whose number is in file $1, if the process of that number is still called $2.
stop() {
  local process
  process=$(cat "$1" 2> /dev/null) || return 0
  if [ "$(cat "/proc/$process/comm" 2> /dev/null)" = "$2" ]; then
    kill "$process"
    for _ in $(seq 100); do is_alive "$process" || break; sleep 0.1; done
    if is_alive "$process"; then kill -KILL "$process"; fi
  fi
  rm -f "$1"
}

is_alive() { [ -r "/proc/$1/status" ] && ! grep -q '^State:.Z' "/proc/$1/status"; }

# Print the processes of this cluster with $1 in their environment, and whose name begins with $2.
processes_with() {
  local environment
  for environment in /proc/[0-9]*/environ; do
    { grep -qzxF "$1" "$environment" && grep -qzxF "SLURM_CONF=$SLURM_CONF" "$environment"; } 2> /dev/null || continue
    grep -qs "^${2:-}" "${environment%environ}comm" || continue
    environment=${environment#/proc/}
    echo "${environment%/environ}"
  done
}

wait_for() {
  local what=$1
  shift
  for _ in $(seq 200); do "$@" > /dev/null 2>&1 && return; sleep 0.1; done
  fail "the test cluster waited 20 s for $what in vain; its logs are in $DIR/log"
}

main "$@"
