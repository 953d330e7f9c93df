/*
 * The protocol of attempts, lines, receipts and commits as a model that spin checks: `make model`.
 *
 * Read it beside sections 3 and 4 of the design, and beside these files of megatron_resume/:
 *   choose()   resume/choose.py: head, live_line, honoured_by, choose; checkpoint/folder.py: read_point, find_model
 *   Life       adapter/start.py: decide_on_rank_0, _open, _let_yield; checkpoint/attempts.py: take_number, give_back,
 *              write_start, withdraw, newer_than; adapter/save_folders.py and checkpoint/leftovers.py: move_away,
 *              put_back, clear_before_save; adapter/loading.py; save_checkpoint as adapter/saving.py wraps it
 *   Megatron   the processes that write model files, for synchronous and asynchronous saves; no code of ours
 *   Writer     adapter/writer.py, checkpoint/commit.py: receipt, data checkpoint, COMMITTED
 *   Death      SIGKILL
 *
 * Three lives of the job, two trained roles, per life two saves (of two iterations) in flight, which finish in any
 * order. A step is what one system call makes visible to others. Between any two steps every other process may act,
 * and death may come. There are three environments:
 *
 *   kill   (default) A start is refused while a holder is alive. Processes die at any step. Megatron's writers may
 *          survive them as orphans and go on at any time. A check for a newer attempt and what it guards are one step:
 *          nobody stands still between the two for as long as another life needs to start, train and save.
 *   HELD   Leases tell nothing: any process may stand still between any two steps for any time (SIGSTOP, a mount that
 *          hangs), others take it for dead, and it goes on later. So no start is refused because of a holder, and a
 *          commit that was checked may come after newer attempts. A process that is never scheduled again has died,
 *          so all deaths are in here, too.
 *   LEASES As kill, but who holds the job is told by leases alone, while each renews its own (adapter/lease_keeper.py):
 *          a start that stands on the same machine sees who died; on another it suspects each holder, and watches its
 *          lease until it was renewed, or for as long as its holder has to renew it; or it cannot be read at all. How
 *          long that is, is not in here: a watch ends in vain only where the holder is dead. A holder whose storage
 *          does not take its renewals is in HELD.
 *
 * Megatron's folders are shared, and it opens its files by name, however late. So each attempt reaches them by a name
 * of its own (checkpoint/fencing.py), which the next attempt takes away before it moves or saves anything.
 *
 * Left out, on purpose: the bytes and formats of files, torn writes and power cuts (rule 1: a file of ours appears
 * whole or not at all, so writing one is a single step); damage, digests and modification times (tests mutate real
 * files); the tracker (nobody trusts it: `ckpt_step` pins the iteration, the audit compares); the clock of leases
 * (see the environments); a job per role and joining (here one process holds both roles; that a member commits while
 * another opens the next attempt is HELD's late commit); ranks other than 0; frozen roles; starts anew on request,
 * --take-over, and naming an old line; retention; stale directory listings; numbers that are given back and taken
 * again (the next life takes a larger one: only their order matters).
 * With GOES_BACK any life may find that the newest point could not be loaded, and go back to the next older one. Until it
 * trains, the line goes on as if it had not begun (checkpoint/untrained.py, adapter/lineage.py).
 * An iteration is a moment at which the job saves: 1 is the first. A model folder of a role holds one file, whose
 * content is the attempt that wrote it, or MIXED.
 *
 * The laws. Each is an assertion with its name behind it, and is checked wherever the line is reached:
 *   one moment      roles and data that are loaded come from one iteration, one attempt, one moment
 *   as receipted    the content that is loaded is the content that the receipt recorded
 *   newest point    an automatic start takes the newest whole point of the live line, and none that was abandoned:
 *                   late writes of dead attempts change nothing, and of one attempt at most the commits are used
 *   no fresh start  with a commit visible no start is fresh
 *   back once       a request moves the job back once
 *   whole commit    a visible commit names a receipt of each role and the data, of its own attempt and moment
 *   one line        an attempt that trains has seen every smaller attempt that ever trained
 *   one trainer     two attempts that are alive never both load or train (kill, LEASES)
 *   never lost      the newest point of the live line stays whole, so no start is refused for want of it
 *   one trains      of starts that race one trains, if nothing dies (NO_DEATH)
 *   held by one     a start that is refused because somebody holds the job was watching one who lived (LEASES)
 *
 * Each other switch breaks the protocol in one place; tools/model.sh expects a law to fail then.
 */

#ifndef LIVES
#define LIVES 3
#endif
#ifndef SAVES
#define SAVES 2 /* per life */
#endif
#ifndef LAST
#define LAST 3 /* iterations of the whole job; a life that resumes late saves fewer than SAVES */
#endif

/* ------------------------------------------------------------------ on disk */

#define MIXED (LIVES + 1) /* a file that two attempts wrote, or that was recorded before it was written */

byte taken;                                     /* numbers taken so far; mkdir is exclusive */
byte numbers;                                   /* bit n: attempts/n exists */
byte starts;                                    /* bit n: attempts/n/start.json exists; it says: */
byte parent_i[LIVES + 1], parent_a[LIVES + 1];  /*   parent point (iteration, attempt); 0: fresh */
bool by_request[LIVES + 1];                     /*   parent was requested */
#ifdef GOES_BACK
byte left_i[LIVES + 1], left_a[LIVES + 1]; /* untrained.json: the point that was left, until the attempt trains */
#define TRUE_LINE_I(n) (left_a[n] -> left_i[n] : parent_i[n])
#define TRUE_LINE_A(n) (left_a[n] -> left_a[n] : parent_a[n])
#else
#define TRUE_LINE_I(n) parent_i[n]
#define TRUE_LINE_A(n) parent_a[n]
#endif
#ifdef LINEAGE_AT_ONCE
#define LINE_I(n) parent_i[n]
#define LINE_A(n) parent_a[n]
#else
#define LINE_I(n) TRUE_LINE_I(n)
#define LINE_A(n) TRUE_LINE_A(n)
#endif

#ifdef POINTS_SHARED_BY_ATTEMPTS
#define POINT(i, a) ((i) - 1) /* broken: iter_i/ instead of iter_i.a<attempt>/ */
#else
#define POINT(i, a) (((i) - 1) * LIVES + (a) - 1)
#endif
#define RECEIPT(r, i, a) ((r) * LAST * LIVES + POINT(i, a))
byte receipt[2 * LAST * LIVES]; /* policy.json, value.json: the content that was recorded; 0: no such file */
byte data[LAST * LIVES];        /* data.json: the moment that it describes; 0: no such file */
short commits;                  /* bit POINT(i, a): COMMITTED */

#define FOLDER(r, i) ((r) * LAST + (i) - 1)
byte inode[2 * LAST];   /* <save of role>/iter_i: the attempt that made the folder; 0: no such folder */
byte content[2 * LAST]; /* the attempt that wrote it; 0: nothing or truncated */
#define MOVED(r, i, a) (1 << ((r) * LAST * LIVES + ((i) - 1) * LIVES + (a) - 1))
int aside; /* <save of role>/abandoned/...: of what was moved there, the folders that a receipt describes */
#ifndef SHARED_NAMES
byte revoked; /* names of attempts before this one are gone */
#endif

#define COMMITTED(i, a) (commits & (1 << POINT(i, a)))
#define IN_PLACE(r, i, a) (inode[FOLDER(r, i)] && content[FOLDER(r, i)] == receipt[RECEIPT(r, i, a)])
#ifdef NO_PUTTING_BACK
#define AS_RECEIPTED(r, i, a) IN_PLACE(r, i, a)
#else
#define AS_RECEIPTED(r, i, a) (IN_PLACE(r, i, a) || (aside & MOVED(r, i, a))) /* find_model */
#endif
#define WHOLE(i, a) (data[POINT(i, a)] && AS_RECEIPTED(0, i, a) && AS_RECEIPTED(1, i, a))

/* ------------------------------------------------------------------ in memory */

bool up[LIVES + 1];    /* the main process, with our writer thread, is alive (HELD: always, see above) */
byte begun[LIVES + 1]; /* calls of save_checkpoint, policy and value in turn */

#define NONE 0
#define BEGUN 1   /* Megatron made the folder */
#define OPENED 2  /* the file is open, and truncated */
#define WRITTEN 3 /* Megatron has finished, finalizers included */
#define SLOT(a, r, k) ((((a) - 1) * 2 + (r)) * SAVES + (k))
byte save[LIVES * 2 * SAVES];   /* per attempt, role and save */
byte handle[LIVES * 2 * SAVES]; /* the folder in which the writer opened its file */

#define ROLE(a, r) (((a) - 1) * 2 + (r))
byte turn[LIVES * 2];  /* which save our writer is at */
byte phase[LIVES * 2]; /* 0 waits, 1 receipt written, 2 data written, 3 about to commit */

chan death[LIVES + 1] = [0] of { bit };

/* ------------------------------------------------------------------ what only the laws see */

byte trained; /* bit n: attempt n was about to load, or to train from the start */
bool moved_back;
#ifdef NO_DEATH
byte ended;
#endif

/* scratch, within one step: hidden from the state */
hidden byte truth_i, truth_a;
hidden byte h, s, x, y, lim, found_i, found_a, over_i, over_a, out, asked;
#define FRESH 1
#define RESUME 2
#define REFUSED 3

/* ------------------------------------------------------------------ the choice: resume/choose.py */

#ifdef REQUEST
#define ASKS(n) ((n) >= 2) /* lives 2 and 3 are one launch, restarted with the same roll back to iteration 1 */
#else
#define ASKS(n) false
#endif
#define OF(a) ((1 << POINT(1, a)) | (1 << POINT(2, a)) | (1 << POINT(LAST, a)))
#ifdef HEAD_COUNTS_EVERY_START
#define SKIPPED(n, points_seen) false
#else
#define SKIPPED(n, points_seen) (parent_a[n] == 0 && (points_seen & OF(n)) == 0)
#endif
#ifdef GOES_BACK
#define PASSES_OVER (back && !asked && !over_i)
#else
#define PASSES_OVER false
#endif
#define FITS(i, a) ((points_seen & (1 << POINT(i, a))) && WHOLE(i, a) && (!asked || (i) == 1))
#define NUMBER_ABOVE ((numbers >> (me + 1)) != 0)
#define START_ABOVE ((starts >> (me + 1)) != 0)

/* `starts_seen`, `points_seen`: start.json and COMMITTED files that the reader found; both are lists, read in turn. */
inline choose(starts_seen, points_seen) {
    asked = ASKS(me);
    h = taken; /* head: the newest start, skipping fresh ones that never committed */
    do
    :: h > 0 && ((starts_seen & (1 << h)) == 0 || SKIPPED(h, points_seen)) -> h--
    :: else -> break
    od;
    s = 1; /* honoured_by: a request that an attempt of this launch followed is no request any more */
    do
    :: s <= LIVES ->
#ifndef REQUEST_EVERY_TIME
        if
        :: (starts_seen & (1 << s)) && by_request[s] -> asked = 0
        :: else
        fi;
#endif
        s++
    :: else -> break
    od;
    s = h; lim = LAST; found_i = 0; found_a = 0; over_i = 0; over_a = 0; /* live_line, newest first; the first whole point is taken */
    do
    :: s == 0 || found_i -> break
    :: else ->
        x = lim;
        do
        :: x == 0 -> break
        :: x > 0 && FITS(x, s) && !PASSES_OVER -> found_i = x; found_a = s; break
        :: x > 0 && FITS(x, s) && PASSES_OVER -> over_i = x; over_a = s; x--
        :: else -> x--
        od;
#ifndef LINE_WITHOUT_LIMIT
        lim = LINE_I(s);
#endif
        s = LINE_A(s)
    od;
    if
    :: over_i && !found_i -> found_i = over_i; found_a = over_a; over_i = 0; over_a = 0 /* no older one: it, again */
    :: else
    fi;
#ifdef NEWEST_NUMBER_WINS
    x = (asked -> 0 : LAST); found_i = (asked -> found_i : 0);
    do
    :: x == 0 || found_i -> break
    :: else ->
        s = LIVES;
        do
        :: s > 0 && COMMITTED(x, s) && WHOLE(x, s) -> found_i = x; found_a = s; break
        :: s > 0 && !(COMMITTED(x, s) && WHOLE(x, s)) -> s--
        :: s == 0 -> break
        od;
        x--
    od;
#endif
    if
    :: found_i -> out = RESUME
    :: !found_i && (points_seen || asked) -> out = REFUSED
    :: else -> out = FRESH
    fi;
    h = 0; s = 0; x = 0; lim = 0
}

/* Where an automatic start must continue that saw these starts, said in another way than choose() does: the newest
   attempt that resumed or committed counts; its newest commit, else its parent. */
inline tell_truth(starts_seen) {
    h = LIVES; truth_i = 0; truth_a = 0;
    do
    :: h > 0 && ((starts_seen & (1 << h)) == 0 || (parent_a[h] == 0 && (commits & OF(h)) == 0)) -> h--
    :: else -> break
    od;
    if
    :: h > 0 ->
        truth_i = TRUE_LINE_I(h); truth_a = TRUE_LINE_A(h);
        x = 1;
        do
        :: x <= LAST ->
            if
            :: COMMITTED(x, h) -> truth_i = x; truth_a = h
            :: else
            fi;
            x++
        :: else -> break
        od
    :: else
    fi;
    h = 0; x = 0
}

/* What a superseded start decides does not matter: it ends at its next check. */
inline right_choice(starts_seen) {
    d_step { tell_truth(starts_seen) };
    if
    :: NUMBER_ABOVE || asked || !truth_a -> skip
    :: else ->
        assert(WHOLE(truth_i, truth_a)); /* law: never lost */
        assert(out != FRESH); /* law: no fresh start */
        assert(out == RESUME && (over_a -> over_i : found_i) == truth_i &&
               (over_a -> over_a : found_a) == truth_a) /* law: newest point */
    fi;
    truth_i = 0; truth_a = 0
}

inline nothing_lost() {
    d_step { tell_truth(starts) };
    assert(!truth_a || WHOLE(truth_i, truth_a)); /* law: never lost */
    truth_i = 0; truth_a = 0
}

inline forget() { found_i = 0; found_a = 0; over_i = 0; over_a = 0; out = 0; asked = 0 }

/* ------------------------------------------------------------------ death, stopping, fencing */

/* The main process and its threads end; what Megatron's writers had not finished may go on. What a dead attempt has
   not committed nobody will read (choose() reads committed points, and only their own attempt commits them), so it is
   forgotten here, which keeps the states few. */
inline die(a) {
    d_step {
        up[a] = 0; x = 0;
        do
        :: x < 2 * SAVES ->
            y = (a - 1) * 2 * SAVES + x;
            if
            :: save[y] == WRITTEN -> save[y] = NONE; handle[y] = 0
            :: else
            fi;
            x++
        :: else -> break
        od;
        turn[ROLE(a, 0)] = 0; turn[ROLE(a, 1)] = 0; phase[ROLE(a, 0)] = 0; phase[ROLE(a, 1)] = 0; begun[a] = 0;
#ifndef POINTS_SHARED_BY_ATTEMPTS
        x = 1;
        do
        :: x <= LAST ->
            if
            :: !COMMITTED(x, a) ->
                receipt[RECEIPT(0, x, a)] = 0; receipt[RECEIPT(1, x, a)] = 0; data[POINT(x, a)] = 0;
                aside = aside & ~(MOVED(0, x, a) | MOVED(1, x, a))
            :: else
            fi;
            x++
        :: else -> break
        od;
#endif
        x = 0; y = 0
    }
}

/* Names of smaller attempts only, so never a wrong one. Orphans that are to open their files end now, not at their next
   step: it would change nothing either. */
inline take_names() {
    d_step {
        revoked = (me > revoked -> me : revoked);
#ifndef HELD
        x = 0;
        do
        :: x < (me - 1) * 2 * SAVES ->
            if
            :: save[x] == BEGUN && !up[x / (2 * SAVES) + 1] -> save[x] = NONE; handle[x] = 0
            :: else
            fi;
            x++
        :: else -> break
        od;
        x = 0
#endif
    }
}

#ifdef NO_FENCE
#define SUPERSEDED false
#else
#define SUPERSEDED START_ABOVE /* newer_than: a larger attempt has begun */
#endif

#ifdef LEASES
/* leases.py, Watch: who is watched by whom, and has not renewed since. A renewal takes the bit away. */
#define WATCHES(w, n) (1 << (((w) - 1) * LIVES + (n) - 1))
#if LIVES == 2
#define WATCHED(n) (WATCHES(1, n) | WATCHES(2, n))
#define WATCHED_BY(w) (WATCHES(w, 1) | WATCHES(w, 2))
#else
#define WATCHED(n) (WATCHES(1, n) | WATCHES(2, n) | WATCHES(3, n))
#define WATCHED_BY(w) (WATCHES(w, 1) | WATCHES(w, 2) | WATCHES(w, 3))
#endif
short unrenewed;
bool apart; /* the processes run on different machines: none can see how another is */

#if defined(SUSPECT_IS_DEAD)
#define SEEN_DEAD(n) (apart || !up[n]) /* broken: told by how often the launcher restarted */
#elif defined(NOBODY_IS_SEEN_DEAD)
#define SEEN_DEAD(n) false
#else
#define SEEN_DEAD(n) (!apart && !up[n])
#endif
#ifdef WAITS_ITS_OWN_TIME
#define IN_VAIN_IF(n) true /* broken: for a shorter time than the holder's */
#else
#define IN_VAIN_IF(n) !up[n]
#endif
#ifdef UNREADABLE_IS_FREE
#define IF_UNREADABLE skip /* broken: every error of a read is "no lease" */
#else
#define IF_UNREADABLE LATER
#endif
#define LATER known = 0; goto later /* refused: nothing was changed; the launcher or a person tries again */
#define BEGAN_LAST(n) (me != (n) && (known >> (n)) == 1)

/* check_free, of the newest attempt that had begun when the folder was read */
inline watch(n) {
    if
    :: atomic { !BEGAN_LAST(n) || SEEN_DEAD(n) }
    :: atomic {
        BEGAN_LAST(n) && !SEEN_DEAD(n) && !apart ->
        assert(up[n]); /* law: held by one */
        LATER }
    :: atomic { BEGAN_LAST(n) && !SEEN_DEAD(n) && apart -> unrenewed = unrenewed | WATCHES(me, n) };
        if
        :: atomic { !(unrenewed & WATCHES(me, n)) -> LATER }
        :: atomic { (unrenewed & WATCHES(me, n)) && IN_VAIN_IF(n) -> unrenewed = unrenewed & ~WATCHES(me, n) }
        :: atomic { unrenewed = unrenewed & ~WATCHES(me, n); IF_UNREADABLE } /* all the while */
        fi
    fi
}
#define UNWATCH unrenewed = unrenewed & ~WATCHED_BY(me);
#else
#define UNWATCH
#endif

#ifdef HELD
#define STOP goto gone
#define MAY_START true
#else
#define STOP die(me); goto gone
#ifdef LEASES
#define MAY_START true /* see watch */
#else
#define HOLDS(n) (me != (n) && up[n] && (starts & (1 << (n))))
#if LIVES == 2
#define MAY_START !(HOLDS(1) || HOLDS(2))
#else
#define MAY_START !(HOLDS(1) || HOLDS(2) || HOLDS(3))
#endif
#endif
#endif

/* Between a check and the action that it guards: nothing, or any time. */
#ifdef HELD
#define MKDIR_LATE }; atomic {
#else
#define MKDIR_LATE
#endif
#ifndef SHARED_NAMES
#define REVOKED (revoked > me)
#else
#define REVOKED false
#endif

/* Moves a model folder aside. Kept in mind is only what a receipt describes: nobody asks for the rest. */
inline move_aside(f) {
    d_step {
        if
        :: content[f] && content[f] != MIXED &&
           receipt[RECEIPT((f) / LAST, (f) % LAST + 1, content[f])] == content[f] ->
            aside = aside | MOVED((f) / LAST, (f) % LAST + 1, content[f])
        :: else
        fi;
        inode[f] = 0; content[f] = 0
    }
}

#if LIVES == 2
#define UP (up[1] * 2 + up[2] * 4)
#else
#define UP (up[1] * 2 + up[2] * 4 + up[3] * 8)
#endif
#ifdef HELD
#define LET_YIELD
#else
/* _let_yield: another start, seen only since our number was taken, withdraws, or had looked before and keeps the job */
#define OTHER(n) (me != (n) && (seen & (1 << (n))) && !(known & (1 << (n))) && (starts & (1 << (n))) && up[n])
#if LIVES == 2
#define OTHERS (OTHER(1) || OTHER(2))
#define KEEPS (OTHER(1) && (trained & 2) || OTHER(2) && (trained & 4))
#else
#define OTHERS (OTHER(1) || OTHER(2) || OTHER(3))
#define KEEPS (OTHER(1) && (trained & 2) || OTHER(2) && (trained & 4) || OTHER(3) && (trained & 8))
#endif
#define LET_YIELD \
        if \
        :: atomic { KEEPS -> numbers = numbers & ~(1 << me); STOP } \
        :: atomic { !OTHERS } \
        fi;
#endif

/* ------------------------------------------------------------------ one life of the job */

#ifdef RESAVE_LOADED
#define ITERATION(k) (parent_i[me] + (parent_a[me] == 0) + (k)) /* broken: saves the iteration that was loaded again */
#else
#define ITERATION(k) (parent_i[me] + 1 + (k))
#endif

#define BACK(r) (!IN_PLACE(r, parent_i[me], parent_a[me]) && (aside & MOVED(r, parent_i[me], parent_a[me])))
inline put_back(r) {
    if
    :: REVOKED -> STOP
    :: else
    fi;
    way = FOLDER(r, parent_i[me]);
    move_aside(way);
    aside = aside & ~MOVED(r, parent_i[me], parent_a[me]);
    inode[way] = parent_a[me]; content[way] = parent_a[me]; way = 0;
    nothing_lost()
}

/* way: a model folder beyond the point; 2 * LAST if there is none. */
inline beyond_point() {
    x = 0; way = 2 * LAST;
    do
    :: x < 2 * LAST ->
        if
        :: inode[x] && x % LAST + 1 > parent_i[me] -> way = x
        :: else
        fi;
        x++
    :: else -> break
    od;
    x = 0
}

#define CHANGED(r) (!IN_PLACE(r, parent_i[me], parent_a[me])) /* of use where files are damaged, which is not in here */

/* Lives are numbered as they take their numbers, which loses nothing: before that they are all alike. */
proctype Life(byte me) {
    byte known = 0, seen = 0, way = 0, policy = 0, value = 0;
#ifdef GOES_BACK
    bool back = 0;
#endif
#ifdef READS_POINTS_FIRST
    short points = 0;
#endif
    {
#ifdef GOES_BACK
        if
        :: back = 1
        :: skip
        fi;
#endif
        /* rank 0 decides from the folder as it is. A refused start changes nothing; the person tries again later. */
#ifdef LEASES
later:
#endif
        do
        :: atomic {
            MAY_START -> d_step { choose(starts, commits) };
            right_choice(starts);
            if
            :: out == REFUSED -> forget()
            :: else -> known = starts; break
            fi }
        od;
#ifdef LEASES
        watch(1);
        watch(2);
#if LIVES == 3
        watch(3);
#endif
#endif
#ifdef NO_SECOND_DECISION
        atomic { parent_i[me] = found_i; parent_a[me] = found_a; by_request[me] = asked; forget() };
#endif

        /* makes attempts/n (take_number) */
        atomic { taken == me - 1 -> taken = me; numbers = numbers | (1 << me); seen = known };

#ifndef NO_SECOND_DECISION
        /* lets the other starts yield, then decides again: reads the starts, and only then which points there are */
        seen = starts;
#if !defined(HELD) && !defined(DECIDES_BEFORE_YIELDING) && !defined(NO_YIELDING)
        LET_YIELD
        seen = starts;
#endif
#ifdef READS_POINTS_FIRST
        points = commits;
        seen = starts;
#define POINTS_SEEN points
#else
#define POINTS_SEEN commits
#endif
        atomic {
            d_step { choose(seen, POINTS_SEEN) };
            parent_i[me] = found_i; parent_a[me] = found_a; by_request[me] = asked;
#ifdef GOES_BACK
            left_i[me] = over_i; left_a[me] = over_a;
#endif
            right_choice(seen);
            if
            :: out == REFUSED -> forget(); numbers = numbers & ~(1 << me); STOP /* give_back */
            :: else -> forget()
            fi
        };
#ifdef DECIDES_BEFORE_YIELDING
        LET_YIELD
#endif
#endif

        /* links start.json (write_start) */
        atomic {
#ifndef HELD
            assert(parent_a[me] || !commits || NUMBER_ABOVE); /* law: no fresh start */
#endif
            starts = starts | (1 << me)
        };

        /* checks that no larger attempt appeared, else takes its own start back (withdraw) */
#ifdef NO_LARGER_CHECK
#define LARGER false
#else
#define LARGER NUMBER_ABOVE
#endif
        if
        :: atomic {
            LARGER ->
#ifdef HELD
           };
           atomic {
#endif
            starts = starts & ~(1 << me); STOP }
        :: atomic {
            !LARGER ->
            assert(!(by_request[me] && moved_back)); /* law: back once */
            moved_back = moved_back || by_request[me];
            assert((trained & ~seen & ((1 << me) - 1)) == 0); /* law: one line */
#ifndef HELD
            assert(!(trained & UP)); /* law: one trainer */
#endif
            trained = trained | (1 << me);
            known = 0; seen = 0 }
        fi;
#ifndef SHARED_NAMES
        take_names();
#endif

#ifndef NO_MOVING_AT_START
        /* rule 7: moves away what lies beyond the point, folder by folder (clear_before_load), unchecked */
        do
#ifdef GOES_BACK
        :: atomic { left_a[me] -> break } /* not before it trains */
#endif
        :: atomic {
            d_step { beyond_point() };
            if
            :: way == 2 * LAST -> way = 0; break
            :: else
            fi
#ifdef HELD
           };
           atomic { /* late: what stood there may be gone, or another's */
#else
            ;
#endif
            if
            :: REVOKED -> way = 0; STOP
            :: else
            fi;
            move_aside(way); way = 0;
            nothing_lost()
           }
        od;
#endif
#ifndef NO_PUTTING_BACK
        /* brings the point's models back where a later attempt, or one that was late, moved them away (put_back) */
        do
        :: atomic { parent_a[me] && BACK(0) -> put_back(0) }
        :: atomic { parent_a[me] && BACK(1) -> put_back(1) }
        :: atomic { !(parent_a[me] && (BACK(0) || BACK(1))) -> break }
        od;
#endif

        /* Megatron loads policy, then value; each is compared with its receipt after the load (rule 7) */
        if
        :: parent_a[me] ->
            policy = content[FOLDER(0, parent_i[me])];
            atomic {
                if
                :: CHANGED(0) -> policy = 0; STOP
                :: else
                fi };
            value = content[FOLDER(1, parent_i[me])];
            atomic {
                if
                :: CHANGED(1) -> policy = 0; value = 0; STOP
                :: else
                fi;
                assert(policy == receipt[RECEIPT(0, parent_i[me], parent_a[me])]); /* law: as receipted */
                assert(value == receipt[RECEIPT(1, parent_i[me], parent_a[me])]); /* law: as receipted */
                assert(policy == parent_a[me] && value == parent_a[me]); /* law: one moment */
                assert(data[POINT(parent_i[me], parent_a[me])] == parent_i[me]); /* law: one moment */
                policy = 0; value = 0 }
        :: else
        fi;

#ifdef GOES_BACK
        /* is to train: becomes the line (lineage.claim), and moves away what lies beyond the point now */
        if
        :: atomic { left_a[me] && (!up[me] || SUPERSEDED) -> STOP }
        :: atomic {
            !left_a[me] || !SUPERSEDED ->
            MKDIR_LATE
            left_i[me] = 0; left_a[me] = 0; back = 0;
            nothing_lost()
           }
        fi;
        do
        :: atomic {
            d_step { beyond_point() };
            if
            :: way == 2 * LAST -> way = 0; break
            :: else
            fi
#ifdef HELD
           };
           atomic {
#else
            ;
#endif
            if
            :: REVOKED -> way = 0; STOP
            :: else
            fi;
            move_aside(way); way = 0;
            nothing_lost()
           }
        od;
#endif

        /* trains, and saves policy and value after each interval: save_checkpoint returns when the folder is made */
        do
        :: atomic {
            begun[me] < 2 * SAVES && ITERATION(begun[me] / 2) <= LAST ->
            if
            :: !up[me] || SUPERSEDED -> STOP
            :: else
            fi;
            way = FOLDER(begun[me] % 2, ITERATION(begun[me] / 2));
#ifndef NO_CLEARING_AT_SAVE
            if
            :: inode[way] && !REVOKED -> move_aside(way) /* clear_before_save */
            :: else
            fi;
#endif
            MKDIR_LATE
            if
            :: REVOKED -> way = 0; STOP
            :: else
            fi;
            if
            :: inode[way] == 0 -> inode[way] = me; content[way] = 0
            :: else /* there already: makedirs(exist_ok=True) */
            fi;
            save[SLOT(me, begun[me] % 2, begun[me] / 2)] = BEGUN;
            way = 0; begun[me]++ }
        :: atomic { !up[me] || SUPERSEDED -> STOP } /* at a renewal */
        od
    } unless { atomic { death[me]?0 -> UNWATCH known = 0; seen = 0; way = 0; policy = 0; value = 0 } };
gone:
#ifdef NO_DEATH
    atomic { ended++; assert(ended < LIVES || trained) /* law: one trains */
    }
#else
    skip
#endif
}

/* ------------------------------------------------------------------ leases */

#ifdef LEASES
proctype Keeper(byte me) {
end:
    do
    :: atomic { up[me] && (starts & (1 << me)) && (unrenewed & WATCHED(me)) -> unrenewed = unrenewed & ~WATCHED(me) }
    od
}
#endif

/* ------------------------------------------------------------------ Megatron's writers; they outlive their life */

#define CAN_OPEN(r, k) (inode[FOLDER(r, ITERATION(k))] != 0 && !REVOKED)

/* open("wb") truncates; the write goes to the open file, wherever its folder was moved since */
#define MEGATRON(r, k) \
    :: atomic { save[SLOT(me, r, k)] == BEGUN -> \
        if \
        :: CAN_OPEN(r, k) -> \
            handle[SLOT(me, r, k)] = inode[FOLDER(r, ITERATION(k))]; \
            content[FOLDER(r, ITERATION(k))] = 0; \
            save[SLOT(me, r, k)] = OPENED \
        :: else -> handle[SLOT(me, r, k)] = 0; save[SLOT(me, r, k)] = NONE \
        fi } \
    :: atomic { save[SLOT(me, r, k)] == OPENED -> \
        x = FOLDER(r, ITERATION(k)); \
        if \
        :: handle[SLOT(me, r, k)] == inode[x] -> content[x] = (content[x] == 0 || content[x] == me -> me : MIXED) \
        :: else \
        fi; \
        x = 0; \
        save[SLOT(me, r, k)] = (up[me] -> WRITTEN : NONE); handle[SLOT(me, r, k)] = 0 }

proctype Megatron(byte me) {
end:
    do
    MEGATRON(0, 0)
    MEGATRON(1, 0)
#if SAVES == 2
    MEGATRON(0, 1)
    MEGATRON(1, 1)
#endif
    od
}

/* ------------------------------------------------------------------ our writers; whoever is last commits */

#define K turn[ROLE(me, r)]
#ifdef RECEIPT_EARLY
#define FINISHED(r) (save[SLOT(me, r, K)] != NONE)
#else
#define FINISHED(r) (save[SLOT(me, r, K)] == WRITTEN) /* rule 4 */
#endif
#ifdef CAPTURE_LATE
#define MOMENT (parent_i[me] + begun[me] / 2)
#else
#define MOMENT ITERATION(K) /* rule 5: captured when save_checkpoint was called */
#endif
#ifdef COMMIT_BEFORE_RECEIPTS
#define READY data[POINT(ITERATION(K), me)]
#else
#define HAS_RECEIPT(r) receipt[RECEIPT(r, ITERATION(K), me)]
#define READY (data[POINT(ITERATION(K), me)] && HAS_RECEIPT(0) && HAS_RECEIPT(1))
#endif
#define STALE SUPERSEDED /* a second guard: the names that were taken away keep every law without it, too */
#ifdef HELD
#define COMMIT_LATE phase[ROLE(me, r)] = 3 } :: atomic { phase[ROLE(me, r)] == 3 ->
#define IN_VAIN SUPERSEDED /* such a receipt is never committed: left out, for fewer states */
#else
#define COMMIT_LATE
#define IN_VAIN false
#endif

proctype Writer(byte me; byte r) {
end:
    do
    :: atomic { /* the receipt: fsync and record what lies in the role's folder now, by name */
        up[me] && !IN_VAIN && phase[ROLE(me, r)] == 0 && K < SAVES && FINISHED(r) ->
        x = FOLDER(r, ITERATION(K));
        save[SLOT(me, r, K)] = NONE; handle[SLOT(me, r, K)] = 0;
        if
        :: inode[x] == 0 || REVOKED -> K++ /* gone: no receipt, no commit */
        :: else ->
            receipt[RECEIPT(r, ITERATION(K), me)] = (content[x] -> content[x] : MIXED);
            phase[ROLE(me, r)] = 2 - r
        fi;
        x = 0 }
    :: atomic { /* data.json comes with the role that is saved last: its save completes the moment */
        up[me] && phase[ROLE(me, r)] == 1 ->
        data[POINT(ITERATION(K), me)] = MOMENT; phase[ROLE(me, r)] = 2 }
    :: atomic { /* parts are missing, the other role has committed, or a newer attempt exists */
        up[me] && phase[ROLE(me, r)] == 2 && (!READY || STALE || COMMITTED(ITERATION(K), me)) ->
        phase[ROLE(me, r)] = 0; K++ }
    :: atomic { /* COMMITTED, last */
        up[me] && phase[ROLE(me, r)] == 2 && READY && !STALE && !COMMITTED(ITERATION(K), me) ->
        COMMIT_LATE
        commits = commits | (1 << POINT(ITERATION(K), me));
        x = ITERATION(K);
        assert(receipt[RECEIPT(0, x, me)] == me && receipt[RECEIPT(1, x, me)] == me); /* law: whole commit */
        assert(data[POINT(x, me)] == x); /* law: whole commit */
        x = 0; phase[ROLE(me, r)] = 0; K++ }
    od
}

/* ------------------------------------------------------------------ SIGKILL, at any step */

#if !defined(HELD) && !defined(NO_DEATH)
proctype Death() {
end:
    do
    :: atomic { up[1] && taken >= 1 -> die(1); death[1]!0 }
    :: atomic { up[2] && taken >= 2 -> die(2); death[2]!0 }
#if LIVES == 3
    :: atomic { up[3] && taken >= 3 -> die(3); death[3]!0 }
#endif
    od
}
#endif

init {
    byte n = 1;
    atomic {
        do
        :: n <= LIVES -> up[n] = true; run Life(n); run Megatron(n); run Writer(n, 0); run Writer(n, 1);
#ifdef LEASES
            run Keeper(n);
#endif
            n++
        :: else -> break
        od;
        n = 0;
#ifdef LEASES
        if
        :: apart = 0
        :: apart = 1
        fi;
#endif
#if !defined(HELD) && !defined(NO_DEATH)
        run Death()
#endif
    }
}
