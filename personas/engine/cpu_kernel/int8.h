// Products of int8 weights, in AVX-512 VNNI.
//
// A weight matrix [out, in] is int8 with a factor for each output. Its input is rounded to 16 bits with a factor for each
// token, finer than bfloat16 where it matters, and split into upper and lower bytes:
//     x = by · (256 · (upper − 128) + lower).
// All products are of integers, two instructions for 64 weights, and no weight is converted after it was read.
// Beyond a few tokens it is faster to convert some rows of weights at a time to bfloat16, which holds integers up to 127
// exactly. Included by forward.cpp after the products in bfloat16.

#pragma once

constexpr int64_t FEW_TOKENS = 8, WIDENED = 32;

struct Bytes {  // `sums` are those of each output's weights
    const int8_t* weights;
    const float* factors;
    const int32_t* sums;
};

struct Halves {  // split inputs: per token `in` upper bytes, then `in` lower ones; and the tokens' factors
    const uint8_t* bytes;
    const float* by;
};

// Split the input of one token; returns its factor.
static float split(const bf16* x, int64_t in, uint8_t* bytes) {
    __m512 most = _mm512_setzero_ps();
    for (int64_t c = 0; c < in; c += 16) most = _mm512_max_ps(most, _mm512_abs_ps(wide(x + c)));
    float highest = std::max(_mm512_reduce_max_ps(most), 1e-30f);  // keeps zeros zero
    const __m512 times = _mm512_set1_ps(32767.0f / highest);
    const __m512i middle = _mm512_set1_epi32(32768);
    for (int64_t c = 0; c < in; c += 16) {
        __m512i whole = _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(wide(x + c), times)), middle);
        _mm_storeu_si128((__m128i*)(bytes + c), _mm512_cvtepi32_epi8(_mm512_srli_epi32(whole, 8)));
        _mm_storeu_si128((__m128i*)(bytes + in + c), _mm512_cvtepi32_epi8(whole));
    }
    return highest / 32767.0f;
}

// Reduce sixteen vectors to their sums: element e of lane l is the sum of v[e][l].
static inline __m512i whole_sums(const __m512i v[4][4]) {
    __m512i z[4];
    for (int e = 0; e < 4; e++) {
        __m512i x = _mm512_add_epi32(_mm512_shuffle_i32x4(v[e][0], v[e][1], 0x44), _mm512_shuffle_i32x4(v[e][0], v[e][1], 0xEE));
        __m512i y = _mm512_add_epi32(_mm512_shuffle_i32x4(v[e][2], v[e][3], 0x44), _mm512_shuffle_i32x4(v[e][2], v[e][3], 0xEE));
        z[e] = _mm512_add_epi32(_mm512_shuffle_i32x4(x, y, 0x88), _mm512_shuffle_i32x4(x, y, 0xDD));
    }
    __m512i u = _mm512_add_epi32(_mm512_unpacklo_epi32(z[0], z[1]), _mm512_unpackhi_epi32(z[0], z[1]));
    __m512i w = _mm512_add_epi32(_mm512_unpacklo_epi32(z[2], z[3]), _mm512_unpackhi_epi32(z[2], z[3]));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(u, w), _mm512_unpackhi_epi64(u, w));
}

// Four outputs of one or two tokens. Prefetches AHEAD rows from `next` on.
template <int T, int AHEAD>
static inline void byte_tile(const Bytes& w, int64_t in, const Halves& x, float* y, int64_t y_stride, const int8_t* next) {
    __m512i acc[4][4];  // per output: the upper bytes of all tokens, then the lower ones
    for (int o = 0; o < 4; o++)
        for (int i = 0; i < 4; i++) acc[o][i] = _mm512_setzero_si512();
    for (int64_t k = 0; k < in; k += 64) {
        __m512i xs[2 * T];
        for (int t = 0; t < T; t++)
            for (int half = 0; half < 2; half++)
                xs[half * T + t] = _mm512_loadu_si512(x.bytes + (2 * t + half) * in + k);
        for (int r = 0; r < AHEAD; r++) _mm_prefetch((const char*)(next + r * in + k), _MM_HINT_T0);
        for (int o = 0; o < 4; o++) {
            __m512i ws = _mm512_loadu_si512(w.weights + o * in + k);
            for (int i = 0; i < 2 * T; i++) acc[o][i] = _mm512_dpbusd_epi32(acc[o][i], xs[i], ws);
        }
    }
    alignas(64) int32_t sums[16];
    _mm512_store_si512(sums, whole_sums(acc));
    const __m128i middle = _mm_slli_epi32(_mm_loadu_si128((const __m128i*)w.sums), 7);
    const __m128 factors = _mm_loadu_ps(w.factors);
    for (int t = 0; t < T; t++) {
        __m128 upper = _mm_cvtepi32_ps(_mm_sub_epi32(_mm_load_si128((const __m128i*)(sums + 4 * t)), middle));
        __m128 lower = _mm_cvtepi32_ps(_mm_load_si128((const __m128i*)(sums + 4 * (T + t))));
        __m128 whole = _mm_fmadd_ps(upper, _mm_set1_ps(256.0f), lower);
        _mm_storeu_ps(y + t * y_stride, _mm_mul_ps(whole, _mm_mul_ps(factors, _mm_set1_ps(x.by[t]))));
    }
}

// The same for up to 32 tokens; prefetches the four outputs after the next.
template <int AHEAD>
static void four_byte_outputs(const Bytes& w, int64_t in, Halves x, int64_t tokens, float* y, int64_t y_stride) {
    const int8_t *next = w.weights + 4 * in, *end = w.weights + 8 * in;
    for (int64_t t = 0; t < tokens; t += 2, next += AHEAD * in, x.bytes += 4 * in, x.by += 2, y += 2 * y_stride)
        if (tokens - t > 1) {
            if (next < end) byte_tile<2, AHEAD>(w, in, x, y, y_stride, next);
            else byte_tile<2, 0>(w, in, x, y, y_stride, next);
        } else {
            if (next < end) byte_tile<1, AHEAD>(w, in, x, y, y_stride, next);
            else byte_tile<1, 0>(w, in, x, y, y_stride, next);
        }
}

// For up to FEW_TOKENS with split inputs: y[t, o] = w[o, :] · x[t, :] for the outputs [from, to), which are
// multiples of four; `in` is one of 64.
static void multiply_bytes(const Bytes& w, int64_t in, int64_t from, int64_t to, const Halves& x, int64_t tokens, float* y,
                           int64_t y_stride) {
    for (int64_t o = from; o < to; o += 4)
        four_byte_outputs<4>({w.weights + o * in, w.factors + o, w.sums + o}, in, x, tokens, y + o, y_stride);
}

// Convert weights to bfloat16; prefetches as many that follow.
static void widen(const int8_t* rows, int64_t weights, bf16* out) {
    for (int64_t c = 0; c < weights; c += 64) {
        _mm_prefetch((const char*)(rows + weights + c), _MM_HINT_T0);
        for (int64_t part = c; part < c + 64; part += 32) {
            __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)(rows + part))));
            __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)(rows + part + 16))));
            _mm512_storeu_si512(out + part, (__m512i)_mm512_cvtne2ps_pbh(high, low));
        }
    }
}

// The same for any number of tokens with inputs in bfloat16; `wide_rows` holds WIDENED rows of weights.
static void multiply_widened(const Bytes& w, int64_t in, int64_t from, int64_t to, const bf16* x, int64_t tokens, float* y,
                             int64_t y_stride, bf16* wide_rows) {
    for (int64_t first = from; first < to; first += WIDENED) {
        const int64_t end = std::min(to, first + WIDENED);
        widen(w.weights + first * in, (end - first) * in, wide_rows);
        for (int64_t b = 0; b < tokens; b += BLOCK)
            for (int64_t o = first; o < end; o += 4) {
                const int64_t count = std::min(tokens - b, BLOCK);
                float* four = y + b * y_stride + o;
                four_outputs<0>(wide_rows + (o - first) * in, in, x + b * in, in, count, four, y_stride);
                const __m128 factors = _mm_loadu_ps(w.factors + o);
                for (int64_t t = 0; t < count; t++, four += y_stride)
                    _mm_storeu_ps(four, _mm_mul_ps(_mm_loadu_ps(four), factors));
            }
    }
}
