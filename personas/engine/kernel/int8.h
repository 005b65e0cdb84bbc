// Products of int8 weights, in AVX-512 VNNI. Included by rows.cpp, behind the products in bfloat16.
//
// A weight matrix [out, in] is int8 with a factor for each 64 weights of an output. For a few tokens each one's input is
// rounded to 16 bits by a factor of its own, finer than bfloat16 where it matters, and split into upper and lower bytes:
//     x = by · (256 · upper + lower − 32768).
// So whole numbers are multiplied as they come from memory. For more tokens it pays to make bfloat16 of some rows of
// weights at a time, and to multiply these.

#pragma once

constexpr int64_t GROUP = 64, FEW_TOKENS = 4, WIDENED = 32;

struct Bytes {  // middles are 32768 times the sum of each output's weights
    const int8_t* weights;
    const float *factors, *middles;

    Bytes from(int64_t out, int64_t in) const {
        return {weights + out * in, factors + out * (in / GROUP), middles + out};
    }
};

struct Halves {  // of tokens' inputs: for each `in` upper bytes, then `in` lower ones; and the tokens' factors
    const uint8_t* bytes;
    const float* by;
};

// Split the input of one token; gives the factor.
static float split(const bf16* x, int64_t in, uint8_t* bytes) {
    __m512 most = _mm512_setzero_ps();
    for (int64_t c = 0; c < in; c += 16) most = _mm512_max_ps(most, _mm512_abs_ps(wide(x + c)));
    float highest = std::max(_mm512_reduce_max_ps(most), 1e-30f);  // zeros stay zeros
    const __m512 times = _mm512_set1_ps(32767.0f / highest);
    const __m512i middle = _mm512_set1_epi32(32768);
    for (int64_t c = 0; c < in; c += 16) {
        __m512i whole = _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(wide(x + c), times)), middle);
        _mm_storeu_si128((__m128i*)(bytes + c), _mm512_cvtepi32_epi8(_mm512_srli_epi32(whole, 8)));
        _mm_storeu_si128((__m128i*)(bytes + in + c), _mm512_cvtepi32_epi8(whole));
    }
    return highest / 32767.0f;
}

// Four outputs of T tokens; the four outputs after them are fetched meanwhile.
template <int T>
static inline void byte_tile(const Bytes& w, int64_t in, const Halves& x, float* y, int64_t y_stride) {
    __m512 acc[4][4];
    for (int o = 0; o < 4; o++)
        for (int t = 0; t < 4; t++) acc[o][t] = _mm512_setzero_ps();
    for (int64_t k = 0; k < in; k += GROUP) {
        __m512i upper[T], lower[T];
        for (int t = 0; t < T; t++) {
            upper[t] = _mm512_loadu_si512(x.bytes + 2 * t * in + k);
            lower[t] = _mm512_loadu_si512(x.bytes + (2 * t + 1) * in + k);
        }
        for (int o = 0; o < 4; o++) {
            _mm_prefetch((const char*)(w.weights + (4 + o) * in + k), _MM_HINT_T0);
            const __m512i ws = _mm512_loadu_si512(w.weights + o * in + k);
            const __m512 factor = _mm512_set1_ps(w.factors[(o * in + k) / GROUP]);
            for (int t = 0; t < T; t++) {
                __m512i sum = _mm512_slli_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), upper[t], ws), 8);
                sum = _mm512_dpbusd_epi32(sum, lower[t], ws);
                acc[o][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), factor, acc[o][t]);
            }
        }
    }
    alignas(64) float found[16];
    _mm512_store_ps(found, sums(acc));
    const __m128 middles = _mm_loadu_ps(w.middles);
    for (int t = 0; t < T; t++)
        _mm_storeu_ps(y + t * y_stride, _mm_mul_ps(_mm_sub_ps(_mm_load_ps(found + 4 * t), middles), _mm_set1_ps(x.by[t])));
}

// For up to FEW_TOKENS, of which the inputs are split: y[t, o] = w[o, :] · x[t, :] for the outputs of [from, to), which are
// multiples of four; `in` is one of GROUP.
static void multiply_bytes(const Bytes& w, int64_t in, int64_t from, int64_t to, const Halves& x, int64_t tokens, float* y,
                           int64_t y_stride) {
    for (int64_t o = from; o < to; o += 4) switch (tokens) {
            case 1: byte_tile<1>(w.from(o, in), in, x, y + o, y_stride); break;
            case 2: byte_tile<2>(w.from(o, in), in, x, y + o, y_stride); break;
            case 3: byte_tile<3>(w.from(o, in), in, x, y + o, y_stride); break;
            default: byte_tile<4>(w.from(o, in), in, x, y + o, y_stride);
        }
}

// Weights as bfloat16; as many that follow are fetched meanwhile.
static void widen(const Bytes& w, int64_t weights, bf16* out) {
    for (int64_t c = 0; c < weights; c += GROUP) {
        _mm_prefetch((const char*)(w.weights + weights + c), _MM_HINT_T0);
        const __m512 factor = _mm512_set1_ps(w.factors[c / GROUP]);
        for (int64_t part = c; part < c + GROUP; part += 32) {
            __m512i low = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)(w.weights + part)));
            __m512i high = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)(w.weights + part + 16)));
            __m512 scaled_low = _mm512_mul_ps(_mm512_cvtepi32_ps(low), factor);
            __m512 scaled_high = _mm512_mul_ps(_mm512_cvtepi32_ps(high), factor);
            _mm512_storeu_si512(out + part, (__m512i)_mm512_cvtne2ps_pbh(scaled_high, scaled_low));
        }
    }
}

// The same for any number of tokens, over their inputs in bfloat16; `wide_rows` has room for WIDENED rows of weights.
static void multiply_widened(const Bytes& w, int64_t in, int64_t from, int64_t to, const bf16* x, int64_t tokens, float* y,
                             int64_t y_stride, bf16* wide_rows) {
    for (int64_t first = from; first < to; first += WIDENED) {
        const int64_t end = std::min(to, first + WIDENED);
        widen(w.from(first, in), (end - first) * in, wide_rows);
        for (int64_t b = 0; b < tokens; b += BLOCK)
            for (int64_t o = first; o < end; o += 4)
                four_outputs<0>(wide_rows + (o - first) * in, in, x + b * in, in, std::min(tokens - b, BLOCK),
                                y + b * y_stride + o, y_stride);
    }
}
