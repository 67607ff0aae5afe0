#!/bin/sh
# Poll or drain from cron: nothing is said while all is well, so cron has nothing to mail. Otherwise it says what is wrong
# and ends with the exit status of the command. Never two at once.
#
#   run_ingest.sh poll     publish what waits in changes/, for consumers to apply
#   run_ingest.sh drain    apply it here and now, without RabbitMQ, and capture the history
#
# INGEST_HOME     where .env is (/etc/fleettickets)
# INGEST_PROGRAM  the program (/opt/fleettickets/bin/fleettickets)
# INGEST_LOCK     the file that is locked (ingest.lock in /run/fleettickets)
# INGEST_LONGEST  seconds after which a run that still goes on is told of (3600)
# INGEST_LOG      a file that gets a line of each run (none)
set -eu

case ${1-} in
    poll) set -- 'poll --quiet' ;;
    # What a consumer does behind each file. One that fails keeps the others' history from nobody.
    drain) set -- 'drain --apply --quiet' 'capture-history --quiet' ;;
    *)
        echo "usage: ${0##*/} poll|drain" >&2
        exit 2
        ;;
esac
name=$1
program=${INGEST_PROGRAM:-/opt/fleettickets/bin/fleettickets}
lock=${INGEST_LOCK:-/run/fleettickets/ingest.lock}

end() { # status, words
    if [ -n "${INGEST_LOG-}" ]; then
        printf '%s %s: %s, exit status %s\n' "$(date +%Y-%m-%dT%H:%M:%S%z)" "$name" "$2" "$1" >>"$INGEST_LOG"
    fi
    exit "$1"
}

cd "${INGEST_HOME:-/etc/fleettickets}"
# The program inherits it: whoever kills this script alone does not let a second one in.
exec 9>>"$lock"
if ! flock --nonblock 9; then
    seconds=$(($(date +%s) - $(stat --format=%Y "$lock")))
    if [ "$seconds" -gt "${INGEST_LONGEST:-3600}" ]; then
        echo "${0##*/}: the run of $seconds seconds ago still goes on; see what it does, and end it: fuser -v $lock"
        end 1 'the run before hangs'
    fi
    end 0 'the run before goes on'
fi
touch "$lock"

status=0
words='done'
for command in "$@"; do
    if [ "$status" -eq 2 ]; then
        break # a setting is wrong, as the next one would only say again
    fi
    ended=0
    # shellcheck disable=SC2086 # it is words
    said=$("$program" $command 2>&1) || ended=$?
    if [ "$ended" -eq 0 ] && [ -z "$said" ]; then
        continue
    fi
    words='see what was mailed'
    printf '%s\n' "$said"
    if [ "$ended" -ne 0 ]; then
        echo "${0##*/}: fleettickets $command ended with exit status $ended; what to do: fleettickets status, doctor"
        if [ "$status" -eq 0 ]; then
            status=$ended
        fi
    fi
done
end "$status" "$words"
