// One forward pass of a Llama-like model over a batch of tokens, each with its own KV cache, position and adapter.
//
// Weights are bfloat16 or int8, keys and values bfloat16, sums and the residual stream float32. A matrix is read in the
// model's layout ([out, in]), so nothing is copied. The pass is one parallel region: a sequence of phases, each divided
// into pieces that threads take in turn. A phase ends with its last piece, so a preempted thread delays the others only
// by the piece that it holds. Needs AVX-512 with BF16 and VNNI; build.py compiles it.

#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

using bf16 = uint16_t;

struct Shape {
    int64_t layers, hidden, inner, heads, kv_heads, width, vocabulary, most_tokens, most_rank;
    float epsilon, scale;
};

struct Matrix {  // int8 if it has factors, otherwise bfloat16
    const void* values;
    const float* factors;
    const int32_t* sums;
};

struct Layer {  // pointers to absent weights are null
    const bf16 *norm, *inner_norm;
    Matrix q, k, v, o, gate, up, down;
    const bf16 *q_bias, *k_bias, *v_bias, *o_bias, *gate_bias, *up_bias, *down_bias, *q_norm, *k_norm;
    int64_t window;  // 0: all preceding tokens
};

struct Stack {  // A [slots, rank, in] and scaled transposed B [slots, rank, out] of one linear layer; null without adapters
    const bf16 *a, *b;
    int64_t rank;
};

template <class T>
struct Lines {  // allocations aligned to cache lines
    using value_type = T;
    Lines() = default;
    template <class U> Lines(const Lines<U>&) {}
    T* allocate(size_t n) { return (T*)std::aligned_alloc(64, (n * sizeof(T) + 63) / 64 * 64); }
    void deallocate(T* p, size_t) { std::free(p); }
    bool operator==(const Lines&) const { return true; }
    bool operator!=(const Lines&) const { return false; }
};
template <class T> using Buffer = std::vector<T, Lines<T>>;

struct Token {
    bf16* memory;  // [layers, 2, kv_heads, capacity, width]
    int64_t capacity, position, slot, id;
};

enum Linear { Q, K, V, O, GATE, UP, DOWN, LINEARS };

static inline __m512 wide(const bf16* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
static inline void narrow(bf16* p, __m512 x) { _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(x)); }
static inline __m512bh load(const bf16* p) { return (__m512bh)_mm512_loadu_si512(p); }
static inline float single(bf16 x) {
    uint32_t bits = uint32_t(x) << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

// e^x for x <= 88: the polynomial of Cephes, after factoring out powers of two.
static inline __m512 exponential(__m512 x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(-87.0f));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 8);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
    p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(p, n);
}

// Reduce four vectors to one: lane l holds four partial sums of the l-th.
static inline __m512 four(__m512 a, __m512 b, __m512 c, __m512 d) {
    __m512 x = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
    __m512 y = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xEE));
    return _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xDD));
}
// Reduce sixteen vectors to their sums: element e of lane l is the sum of v[e][l].
static inline __m512 sums(const __m512 v[4][4]) {
    __m512 z[4];
    for (int e = 0; e < 4; e++) z[e] = four(v[e][0], v[e][1], v[e][2], v[e][3]);
    __m512 u = _mm512_add_ps(_mm512_unpacklo_ps(z[0], z[1]), _mm512_unpackhi_ps(z[0], z[1]));
    __m512 w = _mm512_add_ps(_mm512_unpacklo_ps(z[2], z[3]), _mm512_unpackhi_ps(z[2], z[3]));
    __m512d lo = _mm512_unpacklo_pd(_mm512_castps_pd(u), _mm512_castps_pd(w));
    __m512d hi = _mm512_unpackhi_pd(_mm512_castps_pd(u), _mm512_castps_pd(w));
    return _mm512_add_ps(_mm512_castpd_ps(lo), _mm512_castpd_ps(hi));
}

// Four outputs of T tokens: y[t, 0..3] = w[0..3, :] · x[t, :]. Prefetches AHEAD rows from `next` on.
template <int T, int AHEAD>
static inline void tile(const bf16* w, int64_t in, const bf16* x, int64_t x_stride, float* y, int64_t y_stride,
                        const bf16* next) {
    __m512 acc[4][4];
    for (int o = 0; o < 4; o++)
        for (int t = 0; t < T; t++) acc[o][t] = _mm512_setzero_ps();
    for (int64_t k = 0; k < in; k += 32) {
        __m512bh xs[T];
        for (int t = 0; t < T; t++) xs[t] = load(x + t * x_stride + k);
        for (int r = 0; r < AHEAD; r++) _mm_prefetch((const char*)(next + r * in + k), _MM_HINT_T0);
        for (int o = 0; o < 4; o++) {
            __m512bh ws = load(w + o * in + k);
            for (int t = 0; t < T; t++) acc[o][t] = _mm512_dpbf16_ps(acc[o][t], ws, xs[t]);
        }
    }
    for (int o = 0; o < 4; o++)
        for (int t = T; t < 4; t++) acc[o][t] = _mm512_setzero_ps();
    __m512 s = sums(acc);
    _mm_storeu_ps(y, _mm512_extractf32x4_ps(s, 0));
    if (T > 1) _mm_storeu_ps(y + y_stride, _mm512_extractf32x4_ps(s, 1));
    if (T > 2) _mm_storeu_ps(y + 2 * y_stride, _mm512_extractf32x4_ps(s, 2));
    if (T > 3) _mm_storeu_ps(y + 3 * y_stride, _mm512_extractf32x4_ps(s, 3));
}

// y[t, o] = w[o, :] · x[t, :] for up to 32 tokens and four outputs o; prefetches the next four.
template <int AHEAD>
static void four_outputs(const bf16* row, int64_t in, const bf16* x, int64_t x_stride, int64_t tokens, float* y,
                         int64_t y_stride) {
    const bf16 *next = row + 4 * in, *end = row + 8 * in;
    int64_t t = 0;
    for (; t + 4 <= tokens; t += 4, next += AHEAD * in)
        if (next < end) tile<4, AHEAD>(row, in, x + t * x_stride, x_stride, y + t * y_stride, y_stride, next);
        else tile<4, 0>(row, in, x + t * x_stride, x_stride, y + t * y_stride, y_stride, next);
    x += t * x_stride, y += t * y_stride;
    if (next < end) {
        if (tokens - t == 1) tile<1, AHEAD>(row, in, x, x_stride, y, y_stride, next);
        if (tokens - t == 2) tile<2, AHEAD>(row, in, x, x_stride, y, y_stride, next);
        if (tokens - t == 3) tile<3, AHEAD>(row, in, x, x_stride, y, y_stride, next);
    } else {
        if (tokens - t == 1) tile<1, 0>(row, in, x, x_stride, y, y_stride, next);
        if (tokens - t == 2) tile<2, 0>(row, in, x, x_stride, y, y_stride, next);
        if (tokens - t == 3) tile<3, 0>(row, in, x, x_stride, y, y_stride, next);
    }
}

constexpr int64_t BLOCK = 32;  // tokens that fit into the L1 cache

// y[t, o] = w[o, :] · x[t, :] for all tokens and the outputs [from, to), multiples of four.
static void multiply(const bf16* w, int64_t in, int64_t from, int64_t to, const bf16* x, int64_t x_stride, int64_t tokens,
                     float* y, int64_t y_stride) {
    for (int64_t b = 0; b < tokens; b += BLOCK) {
        int64_t count = std::min(tokens - b, BLOCK);
        const bf16* xb = x + b * x_stride;
        float* yb = y + b * y_stride;
        for (int64_t o = from; o < to; o += 4)
            if (count <= 16) four_outputs<4>(w + o * in, in, xb, x_stride, count, yb + o, y_stride);
            else four_outputs<1>(w + o * in, in, xb, x_stride, count, yb + o, y_stride);
    }
}

#include "int8.h"

// y[t, c] += sum over r of h[t, r] · b[r, c] for T tokens and the columns [from, to), multiples of sixteen. Reads four rows
// of b at a time, each sequentially, which is the fastest way to read memory.
template <int T>
static void add_adapter(const bf16* b, int64_t out, int64_t rank, const float* h, int64_t h_stride, int64_t from,
                        int64_t to, float* y, int64_t y_stride) {
    for (int64_t r = 0; r < rank; r += 4) {
        __m512 factors[T][4];
        for (int t = 0; t < T; t++)
            for (int i = 0; i < 4; i++) factors[t][i] = _mm512_set1_ps(h[t * h_stride + r + i]);
        for (int64_t c = from; c < to; c += 16) {
            __m512 rows[4];
            for (int i = 0; i < 4; i++) rows[i] = wide(b + (r + i) * out + c);
            for (int t = 0; t < T; t++) {
                __m512 sum = _mm512_loadu_ps(y + t * y_stride + c);
                for (int i = 0; i < 4; i++) sum = _mm512_fmadd_ps(factors[t][i], rows[i], sum);
                _mm512_storeu_ps(y + t * y_stride + c, sum);
            }
        }
    }
}

static void rest(int spin) {
    if (spin < 4000) _mm_pause();
    else sched_yield();
}

class Team {  // a pool of threads that wait for work
   public:
    explicit Team(int size) {
        for (int i = 1; i < size; i++) threads_.emplace_back([this, i] { serve(i); });
    }
    ~Team() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            ending_ = true;
            round_++;
        }
        wake_.notify_all();
        for (auto& thread : threads_) thread.join();
    }
    // Run the work on this thread and all that wake up in time; `before` runs while none of them works.
    template <class Before, class Work>
    void run(Before before, Work& work) {
        for (int spin = 0; busy_.load(std::memory_order_acquire); spin++) rest(spin);
        before();
        call_ = [](void* w, int i) { (*static_cast<Work*>(w))(i); };
        work_ = &work;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            busy_.store(threads_.size(), std::memory_order_relaxed);
            round_++;
        }
        wake_.notify_all();
        work(0);
    }

   private:
    void serve(int i) {
        uint64_t seen = 0;
        while (true) {
            {
                std::unique_lock<std::mutex> lock(mutex_);
                wake_.wait(lock, [&] { return round_ != seen; });
                seen = round_;
                if (ending_) return;
            }
            call_(work_, i);
            busy_.fetch_sub(1, std::memory_order_release);
        }
    }
    std::vector<std::thread> threads_;
    std::mutex mutex_;
    std::condition_variable wake_;
    uint64_t round_ = 0;
    bool ending_ = false;
    void (*call_)(void*, int) = nullptr;
    void* work_ = nullptr;
    std::atomic<int> busy_{0};
};

class Model {
   public:
    Model(const Shape& shape, const Layer* layers, const bf16* embedding, const bf16* norm, const Matrix& head, int threads)
        : s_(shape), layers_(layers, layers + shape.layers), embedding_(embedding), norm_(norm), head_(head),
          team_(threads), phases_(16 * shape.layers + 16) {
        int64_t n = shape.most_tokens, all_heads = (shape.heads + 2 * shape.kv_heads) * shape.width;
        int64_t widest = std::max({shape.hidden, shape.inner, shape.heads * shape.width});
        x_.resize(n * shape.hidden);
        in_.resize(n * widest);
        y_.resize(n * std::max({all_heads, 2 * shape.inner, shape.hidden}));
        h_.resize(n * 3 * shape.most_rank);
        scratch_.resize(threads);
        if (!head.factors) return;
        halves_.resize(FEW_TOKENS * 2 * widest), by_.resize(FEW_TOKENS);
        for (auto& scratch : scratch_) scratch.wide_rows.resize(WIDENED * widest);
    }

    // Compute the tokens, store their keys and values, and write logits [wanted, vocabulary] for those in `wanted`.
    void step(const Token* tokens, int64_t n, const float* cosines, const float* sines, const Stack* stacks,
              const int64_t* wanted, int64_t wanted_count, float* logits) {
        auto before = [&] {
            tokens_ = tokens, n_ = n, cosines_ = cosines, sines_ = sines, stacks_ = stacks;
            wanted_ = wanted, wanted_count_ = wanted_count, logits_ = logits;
            runs_.clear();  // runs of at most four tokens with the same adapter
            for (int64_t t = 0; t < n; t++)
                if (t && runs_.back().count < 4 && tokens[runs_.back().first].slot == tokens[t].slot) runs_.back().count++;
                else runs_.push_back({t, 1});
            for (auto& phase : phases_) phase.begun.store(0), phase.done.store(0);
        };
        team_.run(before, work_);
    }

   private:
    struct Run { int64_t first, count; };

    struct Scratch {  // of one thread
        Buffer<float> scores;
        Buffer<bf16> shares, wide_rows;
    };

    struct alignas(64) Phase { std::atomic<int64_t> begun{0}, done{0}; };

    // Take pieces of a phase while there are any, then wait until all are done and their results visible.
    template <class Do>
    void phase(int& number, int64_t pieces, Do work) {
        Phase& phase = phases_[number++];
        for (int64_t i; (i = phase.begun.fetch_add(1, std::memory_order_relaxed)) < pieces;) {
            work(i);
            phase.done.fetch_add(1, std::memory_order_release);
        }
        for (int spin = 0; phase.done.load(std::memory_order_acquire) < pieces; spin++) rest(spin);
    }

    void compute(int thread) {
        int number = 0;
        phase(number, n_, [&](int64_t t) {
            for (int64_t c = 0; c < s_.hidden; c += 16)
                _mm512_storeu_ps(&x_[t * s_.hidden + c], wide(embedding_ + tokens_[t].id * s_.hidden + c));
        });
        phase(number, runs_.size(), [&](int64_t i) { begin(runs_[i], 0); });
        for (int64_t l = 0; l < s_.layers; l++) layer(thread, number, l);
        finish(thread, number);
    }

    void layer(int thread, int& number, int64_t l) {
        const Layer& w = layers_[l];
        const Stack* stack = stacks_ + l * LINEARS;
        const int64_t qd = s_.heads * s_.width, kd = s_.kv_heads * s_.width, all = qd + 2 * kd;
        const Matrix* ws[3] = {&w.q, &w.k, &w.v};
        const bf16* biases[3] = {w.q_bias, w.k_bias, w.v_bias};
        const int64_t outs[3] = {qd, kd, kd}, at[3] = {0, qd, qd + kd};
        const int64_t ends[3] = {pieces(qd), pieces(qd) + pieces(kd), pieces(qd) + 2 * pieces(kd)};
        phase(number, ends[2], [&](int64_t i) {
            int m = i < ends[0] ? 0 : i < ends[1] ? 1 : 2;
            linear(thread, *ws[m], biases[m], s_.hidden, outs[m], i - (m ? ends[m - 1] : 0), &y_[at[m]], all);
        });
        phase(number, runs_.size(), [&](int64_t i) {
            for (int m = 0; m < 3; m++) adapt(runs_[i], stack[m], m, outs[m], 0, outs[m], &y_[at[m]], all);
            for (int64_t t = runs_[i].first; t < runs_[i].first + runs_[i].count; t++) turn(t, l, w);
        });
        phase(number, n_ * s_.kv_heads, [&](int64_t i) { attend(thread, i / s_.kv_heads, i % s_.kv_heads, l, w); });
        if (stack[O].a || splits(n_)) phase(number, runs_.size(), [&](int64_t i) { into(runs_[i], stack + O, 1, qd); });
        phase(number, pieces(s_.hidden), [&](int64_t i) { 
            linear(thread, w.o, w.o_bias, qd, s_.hidden, i, y_.data(), s_.hidden);
        });
        phase(number, runs_.size(), [&](int64_t i) {
            back(runs_[i], stack[O]), normed(runs_[i], w.inner_norm), into(runs_[i], stack + GATE, 2, s_.hidden);
        });
        phase(number, pieces(s_.inner), [&](int64_t i) {
            linear(thread, w.gate, w.gate_bias, s_.hidden, s_.inner, i, y_.data(), 2 * s_.inner);
            linear(thread, w.up, w.up_bias, s_.hidden, s_.inner, i, y_.data() + s_.inner, 2 * s_.inner);
        });
        const int64_t parts = (s_.inner + PART - 1) / PART;
        phase(number, runs_.size() * parts, [&](int64_t i) { gated(runs_[i / parts], stack, i % parts * PART); });
        if (stack[DOWN].a || splits(n_))
            phase(number, runs_.size(), [&](int64_t i) { into(runs_[i], stack + DOWN, 1, s_.inner); });
        phase(number, pieces(s_.hidden), [&](int64_t i) {
            linear(thread, w.down, w.down_bias, s_.inner, s_.hidden, i, y_.data(), s_.hidden);
        });
        phase(number, runs_.size(), [&](int64_t i) {
            back(runs_[i], stack[DOWN]);
            if (l + 1 < s_.layers) begin(runs_[i], l + 1);
        });
    }

    static constexpr int64_t PIECE = 64, PART = 512;  // outputs per piece: of a matrix, and of an adapter, which is read sequentially
    static int64_t pieces(int64_t outputs) { return (outputs + PIECE - 1) / PIECE; }

    void normalise(const float* x, const bf16* weight, bf16* out) const {
        __m512 squares = _mm512_setzero_ps();
        for (int64_t c = 0; c < s_.hidden; c += 16) {
            __m512 v = _mm512_loadu_ps(x + c);
            squares = _mm512_fmadd_ps(v, v, squares);
        }
        __m512 by = _mm512_set1_ps(1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / s_.hidden + s_.epsilon));
        for (int64_t c = 0; c < s_.hidden; c += 16)
            narrow(out + c, _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(x + c), by), wide(weight + c)));
    }

    void normed(Run run, const bf16* weight) {
        for (int64_t t = run.first; t < run.first + run.count; t++)
            normalise(&x_[t * s_.hidden], weight, &in_[t * s_.hidden]);
    }

    void begin(Run run, int64_t l) {
        normed(run, layers_[l].norm), into(run, stacks_ + l * LINEARS + Q, 3, s_.hidden);
    }

    // Quantise the input of `count` linear layers for int8 weights, and project it into the adapters' ranks: h = A x.
    void into(Run run, const Stack* stack, int count, int64_t in) {
        for (int64_t t = run.first; splits(n_) && t < run.first + run.count; t++) halve(t, in);
        int64_t slot = tokens_[run.first].slot;
        for (int m = 0; slot && m < count; m++)
            if (stack[m].a)
                multiply(stack[m].a + slot * stack[m].rank * in, in, 0, stack[m].rank, &in_[run.first * in], in, run.count,
                         &h_[(run.first * 3 + m) * s_.most_rank], 3 * s_.most_rank);
    }

    // y += B h for some columns of the m-th of these layers.
    void adapt(Run run, const Stack& stack, int m, int64_t out, int64_t from, int64_t to, float* y, int64_t stride) {
        int64_t slot = tokens_[run.first].slot, h_stride = 3 * s_.most_rank;
        if (!slot || !stack.a) return;
        const bf16* b = stack.b + slot * stack.rank * out;
        const float* h = &h_[(run.first * 3 + m) * s_.most_rank];
        y += run.first * stride;
        if (run.count == 4) return add_adapter<4>(b, out, stack.rank, h, h_stride, from, to, y, stride);
        for (int64_t t = 0; t < run.count; t++)
            add_adapter<1>(b, out, stack.rank, h + t * h_stride, 0, from, to, y + t * stride, 0);
    }

    bool splits(int64_t tokens) const { return head_.factors && tokens <= FEW_TOKENS; }

    void halve(int64_t t, int64_t in) { by_[t] = split(&in_[t * in], in, &halves_[t * 2 * in]); }

    // y = W x for the outputs [from, to).
    void product(int thread, const Matrix& w, int64_t in, int64_t from, int64_t to, int64_t tokens, float* y,
                 int64_t stride) {
        if (!w.factors) return multiply((const bf16*)w.values, in, from, to, in_.data(), in, tokens, y, stride);
        const Bytes bytes = {(const int8_t*)w.values, w.factors, w.sums};
        if (splits(tokens)) multiply_bytes(bytes, in, from, to, {halves_.data(), by_.data()}, tokens, y, stride);
        else multiply_widened(bytes, in, from, to, in_.data(), tokens, y, stride, scratch_[thread].wide_rows.data());
    }

    // One piece of y = W x + bias.
    void linear(int thread, const Matrix& w, const bf16* bias, int64_t in, int64_t out, int64_t piece, float* y, int64_t stride) {
        int64_t from = piece * PIECE, to = std::min(out, from + PIECE);
        product(thread, w, in, from, to, n_, y, stride);
        if (bias)
            for (int64_t t = 0; t < n_; t++)
                for (int64_t c = from; c < to; c++) y[t * stride + c] += single(bias[c]);
    }

    // Add a block's output, including its adapter's, to the residual stream.
    void back(Run run, const Stack& stack) {
        adapt(run, stack, 0, s_.hidden, 0, s_.hidden, y_.data(), s_.hidden);
        for (int64_t i = run.first * s_.hidden; i < (run.first + run.count) * s_.hidden; i += 16)
            _mm512_storeu_ps(&x_[i], _mm512_add_ps(_mm512_loadu_ps(&x_[i]), _mm512_loadu_ps(&y_[i])));
    }

    // silu(gate) · up for the columns from `from` on.
    void gated(Run run, const Stack* stack, int64_t from) {
        const int64_t to = std::min(s_.inner, from + PART), stride = 2 * s_.inner;
        adapt(run, stack[GATE], 0, s_.inner, from, to, y_.data(), stride);
        adapt(run, stack[UP], 1, s_.inner, from, to, y_.data() + s_.inner, stride);
        const __m512 one = _mm512_set1_ps(1.0f), most = _mm512_set1_ps(87.0f);
        for (int64_t t = run.first; t < run.first + run.count; t++)
            for (int64_t c = from; c < to; c += 16) {
                __m512 gate = _mm512_loadu_ps(&y_[t * stride + c]), up = _mm512_loadu_ps(&y_[t * stride + s_.inner + c]);
                __m512 e = exponential(_mm512_min_ps(_mm512_sub_ps(_mm512_setzero_ps(), gate), most));
                narrow(&in_[t * s_.inner + c], _mm512_mul_ps(_mm512_div_ps(gate, _mm512_add_ps(one, e)), up));
            }
    }

    bf16* cached(const Token& token, int64_t l, int part, int64_t head) const {
        return token.memory + ((l * 2 + part) * s_.kv_heads + head) * token.capacity * s_.width;
    }

    // Rotate queries and keys by their position (RoPE), and store key and value.
    void turn(int64_t t, int64_t l, const Layer& w) {
        const int64_t d = s_.width, all = (s_.heads + 2 * s_.kv_heads) * d;
        float* y = &y_[t * all];
        const float *cosine = cosines_ + t * d, *sine = sines_ + t * d;
        for (int64_t head = 0; head < s_.heads + s_.kv_heads; head++) {
            float* p = y + head * d;
            const bf16* norm = head < s_.heads ? w.q_norm : w.k_norm;
            if (norm) {
                float squares = 0;
                for (int64_t c = 0; c < d; c++) squares += p[c] * p[c];
                float by = 1.0f / std::sqrt(squares / d + s_.epsilon);
                for (int64_t c = 0; c < d; c++) p[c] *= by * single(norm[c]);
            }
            for (int64_t c = 0; c < d / 2; c++) {
                float a = p[c], b = p[c + d / 2];
                p[c] = a * cosine[c] - b * sine[c];
                p[c + d / 2] = b * cosine[c + d / 2] + a * sine[c + d / 2];
            }
        }
        const Token& token = tokens_[t];
        for (int64_t head = 0; head < s_.kv_heads; head++)
            for (int part = 0; part < 2; part++) {
                const float* from = y + (s_.heads + part * s_.kv_heads + head) * d;
                bf16* to = cached(token, l, part, head) + token.position * d;
                for (int64_t c = 0; c < d; c += 16) narrow(to + c, _mm512_loadu_ps(from + c));
            }
    }

    // Attention of one token's queries that share a key-value head.
    void attend(int thread, int64_t t, int64_t kv, int64_t l, const Layer& w) {
        const Token& token = tokens_[t];
        const int64_t d = s_.width, group = s_.heads / s_.kv_heads, end = token.position + 1;
        const int64_t from = w.window ? std::max<int64_t>(0, end - w.window) : 0;
        const bf16 *keys = cached(token, l, 0, kv) + from * d, *values = cached(token, l, 1, kv) + from * d;
        for (int64_t g = 0; g < group; g += 4) {
            const float* q = &y_[(t * (s_.heads + 2 * s_.kv_heads) + kv * group + g) * d];
            bf16* out = &in_[(t * s_.heads + kv * group + g) * d];
            switch (group - g) {
                case 1: attend_with<1>(thread, q, keys, values, end - from, out); break;
                case 2: attend_with<2>(thread, q, keys, values, end - from, out); break;
                case 3: attend_with<3>(thread, q, keys, values, end - from, out); break;
                default: attend_with<4>(thread, q, keys, values, end - from, out);
            }
        }
    }

    // The same for G queries at once over `count` keys.
    template <int G>
    void attend_with(int thread, const float* q, const bf16* keys, const bf16* values, int64_t count, bf16* out) {
        const int64_t d = s_.width, stride = (count + 15) / 16 * 16;
        auto &scores = scratch_[thread].scores;
        auto &shares = scratch_[thread].shares;
        scores.resize(G * stride), shares.resize(G * stride);
        alignas(64) bf16 queries[4 * 256];
        for (int64_t c = 0; c < G * d; c += 16) narrow(queries + c, _mm512_loadu_ps(q + c));
        for (int64_t j = 0; j < count; j += 4) {  // the last keys may lie beyond the end; their scores are ignored
            for (int64_t c = 0; c < 4 * d; c += 32) {
                _mm_prefetch((const char*)(values + j * d + c), _MM_HINT_T0);
                _mm_prefetch((const char*)(keys + (j + 32) * d + c), _MM_HINT_T0);
            }
            tile<G, 0>(keys + j * d, d, queries, d, &scores[j], stride, nullptr);
        }
        float by[G];
        for (int g = 0; g < G; g++) by[g] = 1.0f / softened(&scores[g * stride], count, &shares[g * stride]);
        for (int64_t c = 0; c < d; c += 32) weighed<G>(shares.data(), stride, values + c, count, by, out + c);
    }

    // e^(score - highest) per key, rounded and padded with zeros to a multiple of sixteen; returns the sum.
    float softened(float* scores, int64_t count, bf16* shares) const {
        for (int64_t j = count; j % 16; j++) scores[j] = -INFINITY;
        __m512 most = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps(), scale = _mm512_set1_ps(s_.scale);
        for (int64_t j = 0; j < count; j += 16) most = _mm512_max_ps(most, _mm512_loadu_ps(scores + j));
        __m512 highest = _mm512_set1_ps(_mm512_reduce_max_ps(most));
        for (int64_t j = 0; j < count; j += 16) {
            __mmask16 there = count - j >= 16 ? 0xFFFF : (1 << (count - j)) - 1;
            __m512 below = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(scores + j), highest), scale);
            narrow(shares + j, _mm512_maskz_mov_ps(there, exponential(below)));
            total = _mm512_add_ps(total, wide(shares + j));
        }
        return _mm512_reduce_add_ps(total);
    }

    // Weighted sum of 32 columns of the values for G queries.
    template <int G>
    void weighed(const bf16* shares, int64_t stride, const bf16* values, int64_t count, const float* by, bf16* out) const {
        const int64_t d = s_.width;
        __m512 left[G], right[G];
        for (int g = 0; g < G; g++) left[g] = right[g] = _mm512_setzero_ps();
        for (int64_t j = 0; j < count; j += 2) {
            __m512i one = _mm512_loadu_si512(values + j * d);
            __m512i other = _mm512_loadu_si512(values + std::min(j + 1, count - 1) * d);  // weighted by zero at the end
            __m512bh low = (__m512bh)_mm512_unpacklo_epi16(one, other), high = (__m512bh)_mm512_unpackhi_epi16(one, other);
            for (int g = 0; g < G; g++) {
                int32_t pair;
                memcpy(&pair, shares + g * stride + j, 4);
                __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
                left[g] = _mm512_dpbf16_ps(left[g], low, both);
                right[g] = _mm512_dpbf16_ps(right[g], high, both);
            }
        }
        const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
        const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
        for (int g = 0; g < G; g++) {
            __m512 factor = _mm512_set1_ps(by[g]);
            narrow(out + g * d, _mm512_mul_ps(_mm512_permutex2var_ps(left[g], first, right[g]), factor));
            narrow(out + g * d + 16, _mm512_mul_ps(_mm512_permutex2var_ps(left[g], second, right[g]), factor));
        }
    }

    void finish(int thread, int& number) {
        phase(number, wanted_count_, [&](int64_t i) {
            normalise(&x_[wanted_[i] * s_.hidden], norm_, &in_[i * s_.hidden]);
            if (splits(wanted_count_)) halve(i, s_.hidden);
        });
        phase(number, (s_.vocabulary + 255) / 256, [&](int64_t i) {
            int64_t to = std::min(s_.vocabulary, (i + 1) * 256);
            product(thread, head_, s_.hidden, i * 256, to, wanted_count_, logits_, s_.vocabulary);
        });
    }

    Shape s_;
    std::vector<Layer> layers_;
    const bf16 *embedding_, *norm_;
    Matrix head_;
    Team team_;
    std::vector<Phase> phases_;
    std::function<void(int)> work_ = [this](int i) { compute(i); };
    Buffer<float> x_, y_, h_, by_;
    Buffer<bf16> in_;
    Buffer<uint8_t> halves_;
    std::vector<Scratch> scratch_;
    std::vector<Run> runs_;
    const Token* tokens_ = nullptr;
    const float *cosines_ = nullptr, *sines_ = nullptr;
    const Stack* stacks_ = nullptr;
    const int64_t* wanted_ = nullptr;
    int64_t n_ = 0, wanted_count_ = 0;
    float* logits_ = nullptr;
};

extern "C" {
Model* understudy_open(const Shape* shape, const Layer* layers, const bf16* embedding, const bf16* norm, const Matrix* head,
                       int threads) {
    return new Model(*shape, layers, embedding, norm, *head, threads);
}
void understudy_step(Model* model, const Token* tokens, int64_t n, const float* cosines, const float* sines,
                     const Stack* stacks, const int64_t* wanted, int64_t wanted_count, float* logits) {
    model->step(tokens, n, cosines, sines, stacks, wanted, wanted_count, logits);
}
void understudy_close(Model* model) { delete model; }
}
