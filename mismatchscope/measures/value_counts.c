/* Where values lie, counted in one pass over them: the histograms of sketches.py, quantile_limits.py, accumulators.py
 * and positions.py, which say what their bins are.
 *
 * Legend: N = values, S = sequences, of which s is values offsets[s] up to offsets[s + 1]; C = clusters, B = bins,
 * T = thresholds or positions, G = groups of positions. The sign bit is cleared for |value|: positive floats are in
 * the order of their bits.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { PIECE = 256, MOST_BINS = 512, MOST_THRESHOLDS = 64 };

#define INLINE static inline __attribute__((always_inline))

static const uint64_t MAGNITUDE = 0x7fffffffffffffff, INFINITE = 0x7ff0000000000000;

static inline uint64_t bits_of(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* The layout is read by numpy: see `RANGE` in value_counts.py. */
typedef struct {
    double smallest, largest;
    int64_t least_bits, most_bits; /* of the magnitudes that are neither zero nor infinite */
    int64_t minus_infinite, zeros, infinite;
    int64_t outside; /* of the bins that were counted into */
} range_result;

/* Of at most PIECE values; with `place`, where each is counted in a window of `bins` bins from that of bits
   `first` << `shift`: 2 bin + negative, or -1 of zeros, infinities and what is outside the window. */
INLINE void add_piece(const double *value, int64_t n, int shift, int64_t first, int64_t bins, int64_t *place,
                      range_result *out) {
    double smallest = out->smallest, largest = out->largest;
    int64_t least = out->least_bits, most = out->most_bits, minus_infinite = 0, zeros = 0, infinite = 0, outside = 0;
#pragma omp simd reduction(min : smallest, least) reduction(max : largest, most) \
    reduction(+ : minus_infinite, zeros, infinite, outside)
    for (int64_t i = 0; i < n; i++) {
        double v = value[i];
        int64_t bits = (int64_t)(bits_of(v) & MAGNITUDE);
        int64_t zero = bits == 0, endless = bits >= (int64_t)INFINITE, negative = v < 0;
        smallest = v < smallest ? v : smallest;
        largest = v > largest ? v : largest;
        int64_t low = zero | endless ? INT64_MAX : bits, high = zero | endless ? -1 : bits;
        least = low < least ? low : least;
        most = high > most ? high : most;
        zeros += zero;
        minus_infinite += endless & negative;
        infinite += endless & (negative ^ 1);
        if (place) {
            int64_t bin = (bits >> shift) - first, within = (bin >= 0) & (bin < bins), has = (zero | endless) ^ 1;
            place[i] = within & has ? 2 * bin + negative : -1;
            outside += has & (within ^ 1);
        }
    }
    *out = (range_result){smallest, largest, least, most, out->minus_infinite + minus_infinite,
                          out->zeros + zeros, out->infinite + infinite, out->outside + outside};
}

static const range_result NOTHING = {INFINITY, -INFINITY, INT64_MAX, -1, 0, 0, 0, 0};

void value_range(const double *value, int64_t n, range_result *out) {
    *out = NOTHING;
    add_piece(value, n, 0, 0, 0, NULL, out);
}

/* The same, and adds to counts [B, 2], of positive and of negative values, those that the window holds. */
void bin_counts(const double *value, int64_t n, int shift, int64_t first, int64_t bins, int64_t *counts,
                range_result *out) {
    int64_t place[PIECE];
    *out = NOTHING;
    for (int64_t begin = 0; begin < n; begin += PIECE) {
        int64_t tokens = n - begin < PIECE ? n - begin : PIECE;
        add_piece(value + begin, tokens, shift, first, bins, place, out);
        for (int64_t i = 0; bins && i < tokens; i++)
            counts[place[i] < 0 ? 0 : place[i]] += place[i] >= 0;
    }
}

/* How many of `magnitudes`, half octaves from 2^(first / 2), are smaller than a magnitude, or equal to it. */
static inline int64_t half_octaves_below(uint64_t bits, int64_t or_equal, int64_t first, int64_t magnitudes) {
    static const uint64_t MANTISSA = 0xfffffffffffff, ROOT_2 = 0x6a09e667f3bcd;
    bits -= (bits > 0) & (or_equal ^ 1);
    int64_t below = 2 * ((int64_t)(bits >> 52) - 1023) + ((bits & MANTISSA) >= ROOT_2) - (first - 1);
    below = below < 0 ? 0 : below;
    return below > magnitudes ? magnitudes : below;
}

/* Adds to counts [C, B] at the row of each sequence; NaN has no bin. B is magnitudes + 1, or 2 magnitudes + 2 where
   the sign counts. */
void half_octave_counts(const double *value, const int64_t *offsets, const int64_t *row, int64_t n_sequences,
                        int has_sign, int64_t first, int64_t magnitudes, int64_t *counts) {
    int64_t bins = has_sign ? 2 * magnitudes + 2 : magnitudes + 1, bin[PIECE];
    int64_t here[2][MOST_BINS]; /* neighbours are often in one bin, and would wait for each other */
    for (int64_t s = 0; s < n_sequences; s++) {
        memset(here, 0, sizeof here);
        for (int64_t begin = offsets[s]; begin < offsets[s + 1]; begin += PIECE) {
            int64_t n = offsets[s + 1] - begin < PIECE ? offsets[s + 1] - begin : PIECE;
#pragma omp simd
            for (int64_t i = 0; i < n; i++) {
                double v = value[begin + i];
                int64_t rises = v > 0, falls = has_sign & (v < 0);
                int64_t below = half_octaves_below(bits_of(v) & MAGNITUDE, falls, first, magnitudes);
                below = has_sign ? magnitudes + rises + (rises - falls) * below : below;
                bin[i] = v == v ? below : bins; /* which is no bin */
            }
            for (int64_t i = 0; i < n; i++)
                here[i & 1][bin[i]]++;
        }
        int64_t *of_row = counts + row[s] * bins;
        for (int64_t b = 0; b < bins; b++) of_row[b] += here[0][b] + here[1][b];
    }
}

/* Adds to counts [C, T + 1] and max [C]; a value is in the bin of the first threshold that is not below it. The
   thresholds that a value can be compared with are looked up by its power of two. */
void exceedance_counts(const double *value, const int64_t *offsets, const int64_t *row, int64_t n_sequences,
                       const double *threshold, int64_t thresholds, int64_t *counts, double *max) {
    uint8_t below[2048]; /* how many thresholds lie below all values of that power of two */
    double padded[MOST_THRESHOLDS * 2];
    int64_t within = 0, bins = thresholds + 1, here[MOST_THRESHOLDS + 1];
    for (int64_t t = 0; t < MOST_THRESHOLDS * 2; t++) padded[t] = t < thresholds ? threshold[t] : INFINITY;
    for (int64_t power = 0, t = 0; power < 2048; power++) {
        while (t < thresholds && (int64_t)(bits_of(threshold[t]) >> 52) < power) t++;
        below[power] = (uint8_t)t;
        int64_t last = t;
        while (last < thresholds && (int64_t)(bits_of(threshold[last]) >> 52) == power) last++;
        within = last - t > within ? last - t : within;
    }
    for (int64_t s = 0; s < n_sequences; s++) {
        double largest = -INFINITY;
        memset(here, 0, sizeof here);
        for (int64_t i = offsets[s]; i < offsets[s + 1]; i++) {
            double v = value[i];
            int64_t first = v > 0 ? below[bits_of(v) >> 52] : 0, bin = first;
            for (int64_t t = 0; t < within; t++) bin += padded[first + t] < v;
            here[bin]++;
            largest = v > largest ? v : largest;
        }
        int64_t *of_row = counts + row[s] * bins;
        for (int64_t b = 0; b < bins; b++) of_row[b] += here[b];
        max[row[s]] = largest > max[row[s]] ? largest : max[row[s]];
    }
}

/* Adds to n [T], sum [T] and max [T] at the position of each value; runs of adjacent positions are added as vectors. */
void position_sums(const double *value, const int64_t *position, int64_t n, int64_t *n_at, double *sum, double *max) {
    for (int64_t begin = 0, end = 1; begin < n; begin = end++) {
        while (end < n && position[end] == position[end - 1] + 1) end++;
        int64_t from = position[begin] - begin;
#pragma omp simd
        for (int64_t i = begin; i < end; i++) {
            double v = value[i];
            n_at[from + i]++;
            sum[from + i] += v;
            max[from + i] = v > max[from + i] ? v : max[from + i];
        }
    }
}

/* Adds to counts [G, B] of values > 0 and zeros [G], for groups of 2^`log2_width` positions. */
void position_bin_counts(const double *value, const int64_t *position, int64_t n, int log2_width, int shift,
                         int64_t first, int64_t bins, int64_t *counts, int64_t *zeros) {
    for (int64_t i = 0; i < n; i++) {
        uint64_t bits = bits_of(value[i]) & MAGNITUDE;
        int64_t group = position[i] >> log2_width, has = bits != 0;
        counts[has ? group * bins + (int64_t)(bits >> shift) - first : 0] += has;
        zeros[group] += has ^ 1;
    }
}
