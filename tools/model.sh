#!/usr/bin/env bash
# Check protocol.pml with spin. `make model` calls this.
#   tools/model.sh             the laws hold, and every broken protocol is caught
#   tools/model.sh --laws      only that the laws hold
#   tools/model.sh --mutants   only the broken protocols
#   tools/model.sh --trail -DFLAG ...   the steps that lead to the violation of one variant
set -uo pipefail
cd "$(dirname "$0")/.."
cc=${CC:-cc}

for tool in spin "$cc"; do
    if ! command -v "$tool" >/dev/null; then
        echo "make: no $tool here: install Debian's package spin, and a C compiler (apt-get install spin gcc)" >&2
        exit 78
    fi
done

work=$(mktemp -d "${TMPDIR:-/tmp}/megatron_resume_model.XXXXXX")
trap 'rm -rf "$work"' EXIT
cp protocol.pml "$work"
cd "$work" || exit 1
failed=0
optimize=-O1
unfinished="not completed|max search depth too small|out of memory|memory limit"
declare -A states_of=() # law -> states in which it was checked

# check FLAGS...: sets `states`, `seconds`, and `outcome`: "holds", the law that failed, or what went wrong.
check() {
    local begun=$SECONDS line
    states=0
    rm -f pan pan.* ./*.trail
    if ! spin -a "$@" protocol.pml >spin.log 2>&1 ||
        ! "$cc" "$optimize" -w -DSAFETY -DCOLLAPSE -DVECTORSZ=1024 -DMEMLIM=3500 -o pan pan.c >cc.log 2>&1; then
        outcome="does not compile: $(cat spin.log cc.log 2>/dev/null | head -3)"
        seconds=0
        return
    fi
    timeout "${MODEL_TIMEOUT:-170}" ./pan -E -m100000 -w22 >pan.log 2>&1
    states=$(sed -nE 's/^ *([0-9]+) states, stored.*/\1/p' pan.log)
    seconds=$((SECONDS - begun))
    if grep -q "assertion violated" pan.log; then
        line=$(spin -t "$@" protocol.pml 2>&1 |
            sed -nE 's/^spin: protocol.pml:([0-9]+), Error: assertion violated.*/\1/p' | head -1)
        outcome=$(sed -n "${line:-1},/;/p" protocol.pml | sed -nE 's/.*\/\* law: (.*) \*\/.*/\1/p' | head -1)
        outcome=${outcome:-an assertion without a name fails}
    elif grep -q "errors: 0" pan.log && ! grep -qE "$unfinished" pan.log; then
        outcome=holds
    else
        outcome="not decided: $(grep -m1 -E "$unfinished" pan.log || echo "ran out of time")"
    fi
}

say() { printf '%-8s %10s states %4s s  %s\n' "$1" "${states:-0}" "$seconds" "$2"; }

# Lives of the job, saves in flight per life, iterations of the whole job.
big="-DLIVES=3 -DSAVES=2 -DLAST=3"
small="-DLIVES=3 -DSAVES=1 -DLAST=2"
two="-DLIVES=2 -DSAVES=2 -DLAST=3"
back="-DGOES_BACK -DLIVES=3 -DSAVES=2 -DLAST=2"
race="-DNO_DEATH -DLIVES=3 -DSAVES=1 -DLAST=2"

# holds "what" "laws that this environment checks" FLAGS...
holds() {
    local what=$1 laws=$2 law
    shift 2
    check "$@"
    if [ "$outcome" = holds ]; then
        say holds "$what"
        while IFS= read -r law; do
            states_of[$law]=$((${states_of[$law]:-0} + states))
        done < <(tr ',' '\n' <<<"$laws")
    else
        say BROKEN "$what: $outcome"
        failed=1
    fi
}

# fails "what" "law" FLAGS...
fails() {
    local kind=$1 what=$2 law=$3
    shift 3
    check "$@"
    if [ "$outcome" = "$law" ]; then
        say "$kind" "$what: \"$law\" fails, as it must"
    else
        say MISSED "$what: expected \"$law\" to fail, found: $outcome"
        failed=1
    fi
}

laws() {
    local held="one moment,as receipted,newest point,no fresh start,whole commit,one line,never lost" law
    local kill="$held,one trainer"
    optimize=-O2
    holds "3 lives, killed at any step, 2 saves in flight each" "$kill" $big
    holds "the same, and a roll back is requested" "$kill,back once" $big -DREQUEST
    holds "3 lives, the newest point may not be loaded" "$kill" $back
    holds "3 starts at once, nothing dies" "$kill,one trains" $race
    holds "3 lives, who lives is told by leases alone" "$kill,held by one" -DLEASES $big
    holds "3 lives, held still at any step for any time" "$held" -DHELD $small
    holds "2 lives, held still, 2 saves in flight each" "$held" -DHELD $two
    holds "3 lives, held still, and a roll back is requested" "$held,back once" -DHELD $small -DREQUEST
    echo
    for law in "one moment" "as receipted" "newest point" "no fresh start" "back once" "whole commit" "one line" \
        "one trainer" "never lost" "one trains" "held by one"; do
        printf 'law      %10s states         %s\n' "${states_of[$law]:-0}" "$law"
        [ -n "${states_of[$law]:-}" ] || failed=1
    done
    echo
}

mutants() {
    optimize=-O0
    echo "Protocols that are broken in one place:"
    # starting
    fails caught NO_SECOND_DECISION "one line" $big -DNO_SECOND_DECISION
    fails caught NO_LARGER_CHECK "one trainer" $big -DNO_LARGER_CHECK
    fails caught NO_YIELDING "one trainer" $big -DNO_YIELDING
    fails caught SUSPECT_IS_DEAD "one trainer" -DLEASES $small -DSUSPECT_IS_DEAD
    fails caught UNREADABLE_IS_FREE "one trainer" -DLEASES $small -DUNREADABLE_IS_FREE
    fails caught WAITS_ITS_OWN_TIME "one trainer" -DLEASES $small -DWAITS_ITS_OWN_TIME
    fails caught NOBODY_IS_SEEN_DEAD "held by one" -DLEASES $small -DNOBODY_IS_SEEN_DEAD
    fails caught DECIDES_BEFORE_YIELDING "no fresh start" $big -DDECIDES_BEFORE_YIELDING
    fails caught READS_POINTS_FIRST "no fresh start" -DHELD $small -DREADS_POINTS_FIRST
    fails caught REQUEST_EVERY_TIME "back once" $big -DREQUEST -DREQUEST_EVERY_TIME
    # choosing
    fails caught NEWEST_NUMBER_WINS "newest point" $big -DREQUEST -DNEWEST_NUMBER_WINS
    fails caught LINE_WITHOUT_LIMIT "newest point" $big -DREQUEST -DLINE_WITHOUT_LIMIT
    fails caught LINEAGE_AT_ONCE "newest point" $back -DLINEAGE_AT_ONCE
    fails caught HEAD_COUNTS_EVERY_START "newest point" -DHELD $small -DHEAD_COUNTS_EVERY_START
    # shared model folders
    fails caught NO_MOVING_AWAY "whole commit" $big -DNO_MOVING_AT_START -DNO_CLEARING_AT_SAVE
    fails caught NO_PUTTING_BACK "never lost" -DHELD $small -DNO_PUTTING_BACK
    fails caught RESAVE_LOADED "never lost" $big -DREQUEST -DRESAVE_LOADED -DNO_CLEARING_AT_SAVE
    fails caught SHARED_NAMES "whole commit" $big -DSHARED_NAMES
    # committing
    fails caught POINTS_SHARED_BY_ATTEMPTS "whole commit" $big -DPOINTS_SHARED_BY_ATTEMPTS
    fails caught COMMIT_BEFORE_RECEIPTS "whole commit" $big -DCOMMIT_BEFORE_RECEIPTS
    fails caught RECEIPT_EARLY "whole commit" $big -DRECEIPT_EARLY
    fails caught CAPTURE_LATE "whole commit" $big -DCAPTURE_LATE
    echo
}

case ${1:-} in
"") laws && mutants ;;
--laws) laws ;;
--mutants) mutants ;;
--trail)
    shift
    check "$@"
    echo "$outcome"
    spin -t -p "$@" protocol.pml
    exit
    ;;
*)
    echo "model: $1 is unknown; there are --laws, --mutants and --trail -DFLAG ..." >&2
    exit 78
    ;;
esac

if [ "$failed" = 0 ]; then
    echo "model: all as expected, in $SECONDS s"
else
    echo "model: see BROKEN or MISSED above; tools/model.sh --trail FLAGS shows the steps" >&2
fi
exit "$failed"
