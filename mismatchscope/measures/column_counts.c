/* What may be a filler in a column of log-probs, counted in one pass; comparison/fillers.py says what it means.
 *
 * Legend: logp = the column, other = that of the other policy; sequence s is rows offsets[s] up to offsets[s + 1].
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

static const uint64_t SPARE_8 = ((uint64_t)1 << 45) - 1, SPARE_11 = ((uint64_t)1 << 42) - 1; /* as in rounding.py */

/* The layout is read by numpy: see `COLUMN_COUNTS` in column_counts.py. Rows that were not found are -1. */
typedef struct {
    int64_t zeros, clear_zeros, runs, run_rows, run_clear_zeros, first_run;
    int64_t low, whole, first_whole;
    int64_t graded, bits8, bits11;
    int64_t long_responses, tails, tail_rows, first_tail;
    double whole_from, whole_to;
} column_result;

/* Places are compared by the id of their sequence, in which rows rise. */
typedef struct {
    int64_t id, run_id, whole_id, tail_id;
} places;

/* The row to name: the first one of the smallest id. */
static int64_t earlier(int64_t row, int64_t id, int64_t named, int64_t *named_id) {
    if (named >= 0 && *named_id <= id) return named;
    *named_id = id;
    return row;
}

typedef struct {
    double clearly_below, low, graded_below, tail_varies;
    int64_t run, tail;
} column_limits;

static void count_runs(const double *logp, const double *other, int64_t begin, int64_t end, column_limits limits,
                       places *at, column_result *found) {
    for (int64_t i = begin; i < end; i++) {
        if (logp[i] != 0) continue;
        int64_t first = i, clear = 0;
        for (; i < end && logp[i] == 0; i++) clear += other[i] < limits.clearly_below;
        found->clear_zeros += clear;
        if (clear >= limits.run && 4 * clear >= i - first) {
            found->first_run = earlier(first, at->id, found->first_run, &at->run_id);
            found->runs++;
            found->run_rows += i - first;
            found->run_clear_zeros += clear;
        }
    }
}

static void count_whole_numbers(const double *logp, int64_t begin, int64_t end, column_limits limits,
                                places *at, column_result *found) {
    for (int64_t i = begin; i < end; i++) {
        if (!(logp[i] < limits.low && logp[i] > -INFINITY)) continue;
        found->low++;
        if (logp[i] != rint(logp[i])) continue;
        found->first_whole = earlier(i, at->id, found->first_whole, &at->whole_id);
        found->whole++;
        found->whole_from = logp[i] < found->whole_from ? logp[i] : found->whole_from;
        found->whole_to = logp[i] > found->whole_to ? logp[i] : found->whole_to;
    }
}

/* One value up to the end, while the other side varies. */
static void count_tail(const double *logp, const double *other, int64_t begin, int64_t end, column_limits limits,
                       places *at, column_result *found) {
    if (end - begin < limits.tail) return;
    found->long_responses++;
    double last = logp[end - 1], low = INFINITY, high = -INFINITY;
    if (!(last < 0 && last > -INFINITY)) return;
    for (int64_t i = end - limits.tail; i < end; i++) {
        if (logp[i] != last) return;
        low = other[i] < low ? other[i] : low;
        high = other[i] > high ? other[i] : high;
    }
    if (!(high - low > limits.tail_varies)) return;
    int64_t first = end;
    while (first > begin && logp[first - 1] == last) first--;
    found->first_tail = earlier(first, at->id, found->first_tail, &at->tail_id);
    found->tails++;
    found->tail_rows += end - first;
}

void column_counts(const double *logp, const double *other, const int64_t *sequence_id, const int64_t *offsets,
                   int64_t n_sequences, const column_limits *limits, column_result *out) {
    column_result found = {.first_run = -1, .first_whole = -1, .first_tail = -1,
                           .whole_from = INFINITY, .whole_to = -INFINITY};
    places at = {0, 0, 0, 0};
    double graded_below = limits->graded_below, low = limits->low;
    for (int64_t s = 0; s < n_sequences; s++) {
        int64_t begin = offsets[s], end = offsets[s + 1], zeros = 0, graded = 0, bits8 = 0, bits11 = 0, below = 0;
#pragma omp simd reduction(+ : zeros, graded, bits8, bits11, below)
        for (int64_t i = begin; i < end; i++) {
            uint64_t bits;
            memcpy(&bits, logp + i, sizeof bits);
            int64_t grades = (logp[i] < graded_below) & (logp[i] > -INFINITY);
            zeros += logp[i] == 0;
            below += logp[i] < low;
            graded += grades;
            bits8 += grades & ((bits & SPARE_8) == 0);
            bits11 += grades & ((bits & SPARE_11) == 0);
        }
        found.zeros += zeros;
        found.graded += graded;
        found.bits8 += bits8;
        found.bits11 += bits11;
        at.id = sequence_id[s];
        if (zeros) count_runs(logp, other, begin, end, *limits, &at, &found);
        if (below) count_whole_numbers(logp, begin, end, *limits, &at, &found);
        count_tail(logp, other, begin, end, *limits, &at, &found);
    }
    *out = found;
}
