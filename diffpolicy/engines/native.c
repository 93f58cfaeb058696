/* A whole sampler at batch 1: the network as a list of operations, and one row of the step table
   (sampling/steps.py) after each pass.

   Tensors are [rows][pitch] floats, time first, channels padded to the width of a vector, with PAD
   rows of zeros on both sides for convolutions. A convolution turns its input over first,
   [channel][row], so that neighbouring rows are neighbours in memory. A linear layer is a
   convolution over one row.

   Weights come packed as [group][channel][tap][panel], a group being `panels` vectors of output
   channels: they are read once, front to back, while up to 16 accumulators stay in registers.
   Where they do not fit in the cache, and few rows share them, their bytes are what costs: there
   they are rounded to 24 bits (8 of exponent, 15 of mantissa, a relative error of 1.53e-5 at most),
   four panels in three vectors. */

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16
#define PAD 4
#define SPINS 4000
#define MAX_UNIT 8192 /* channels of one group, the widest */

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES), aligned(4)));

typedef struct {
    float *data; /* of row 0 */
    int64_t rows, channels, pitch;
} tensor;

enum { CONV, NORM, ADD };
enum { NO_ACTIVATION, SILU, MISH };

typedef struct {
    const float *weight, *bias; /* NORM: gamma, beta, or null */
    const uint32_t *narrow;     /* CONV: the weights in 24 bits, in place of `weight` */
    int64_t kind, in, out;
    int64_t taps, stride, shift, row_step, row_offset, panels, accumulate; /* CONV */
    int64_t activation, film; /* CONV: film is added, NORM: it scales and shifts */
    int64_t groups, film_base; /* NORM */
    double eps;
} operation;

typedef struct {
    float read_x, read_y, read_divisor, clip, x, y, x0, previous, earlier, z;
} row;

typedef struct {
    tensor *tensors;
    operation *observe, *denoise;
    int64_t observe_count, denoise_count;
    int64_t observation, film, x, output, previous, earlier; /* tensors */
    const float *time_films;                        /* [K][F] */
    const row *rows;                                /* [K] */
    int64_t row_count, threads;
} program;

typedef struct {
    program p;
    const float *observation, *noise;
    pthread_t *workers;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int64_t job, quit;
    atomic_long arrived, phase;
    float **room; /* of each thread, for one turned input */
} engine;

static vec splat(float x) {
    vec v;
    for (int i = 0; i < LANES; i++) v[i] = x;
    return v;
}

static vec load(const float *p) { return *(const vec *)p; }

/* Four panels from three vectors: the upper 16 bits of two and two, the lower 8 of all. */
static inline void join(const uint32_t *packed, vec w[4]) {
    const uvec a = *(const uvec *)packed, b = *(const uvec *)(packed + LANES);
    const uvec low = *(const uvec *)(packed + 2 * LANES);
    w[0] = (vec)(a << 16 | (low << 8 & 0xff00));
    w[1] = (vec)((a & 0xffff0000) | (low & 0xff00));
    w[2] = (vec)(b << 16 | (low >> 8 & 0xff00));
    w[3] = (vec)((b & 0xffff0000) | (low >> 16 & 0xff00));
}

static inline vec pick(ivec mask, vec yes, vec no) {
    return (vec)(((ivec)yes & mask) | ((ivec)no & ~mask));
}

/* e^x by Cephes' polynomial on [-ln 2 / 2, ln 2 / 2]; NaN stays NaN. */
static inline vec exponential(vec x) {
    x = pick(x > 88.0f, splat(88.0f), x);
    x = pick(x < -87.0f, splat(-87.0f), x);
    vec scaled = x * 1.44269504f;
    ivec n = __builtin_convertvector(scaled + pick(scaled > 0, splat(0.5f), splat(-0.5f)), ivec);
    vec f = __builtin_convertvector(n, vec), r = x - f * 0.693359375f + f * 2.12194440e-4f;
    vec y = splat(1.9875691500e-4f);
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    return y * (vec)((n + 127) << 23);
}

static inline vec activate(vec x, int64_t kind) {
    if (kind == SILU) return x / (1.0f + exponential(-x));
    if (kind == MISH) { /* x tanh(ln(1 + e^x)) */
        vec e = exponential(pick(x > 20.0f, splat(20.0f), x)), n = e * (e + 2.0f);
        return x * n / (n + 2.0f);
    }
    return x;
}

/* `rows` output rows of one group, with these counts and the stride known to the compiler.
   from: the first row's input for channel 0 and tap 0; `pitch` floats to the next channel. */
static inline __attribute__((always_inline)) void tile(const operation *op, const tensor *out,
                                                       const float *from, int64_t channels,
                                                       int64_t pitch, int64_t at,
                                                       const float *bias, const float *film,
                                                       int64_t row, int64_t first, int panels,
                                                       int rows, int stride, int narrow) {
    vec sum[16];
    float *to[16];
    for (int t = 0; t < rows; t++)
        to[t] = out->data + (op->row_offset + op->row_step * (row + t)) * out->pitch + first;
    for (int t = 0; t < rows; t++)
        for (int p = 0; p < panels; p++) {
            sum[t * panels + p] = bias ? load(bias + p * LANES) : splat(0);
            if (op->accumulate) sum[t * panels + p] += load(to[t] + p * LANES);
            if (film) sum[t * panels + p] += load(film + first + p * LANES);
        }
    const int64_t taps = op->taps;
    const float *weight = op->weight + at;
    const uint32_t *packed = op->narrow + at / 4 * 3;
    for (int64_t c = 0; c < channels; c++, from += pitch)
        for (int64_t j = 0; j < taps; j++) {
            vec w[16];
            for (int p = 0; p < panels; p += 4, packed += 3 * LANES)
                if (narrow) join(packed, w + p);
            for (int p = 0; p < panels; p++, weight += LANES) {
                if (!narrow) w[p] = load(weight);
                for (int t = 0; t < rows; t++) sum[t * panels + p] += w[p] * from[j + t * stride];
            }
        }
    for (int t = 0; t < rows; t++)
        for (int p = 0; p < panels; p++)
            *(vec *)(to[t] + p * LANES) = activate(sum[t * panels + p], op->activation);
}

#define CALL(panels, rows, stride, narrow)                                                   \
    tile(op, out, x, in->channels, pitch, at, bias, film, row, first, panels, rows, stride, narrow)
#define TILE(panels, rows)                                                                   \
    case (panels) * 32 + (rows):                                                             \
        if (panels >= 4 && op->narrow) CALL(panels, rows, 1, 1);                             \
        else if (op->stride == 1) CALL(panels, rows, 1, 0);                                  \
        else CALL(panels, rows, 2, 0);                                                       \
        break

/* [row][channel] with its zeros around -> [channel][row]. */
static void turn(const tensor *in, float *to) {
    const int64_t rows = in->rows + 2 * PAD;
    for (int64_t t = 0; t < rows; t++) {
        const float *from = in->data + (t - PAD) * in->pitch;
        for (int64_t c = 0; c < in->channels; c++) to[c * rows + t] = from[c];
    }
}

static void convolve(const program *p, const operation *op, int64_t thread, float *room) {
    const tensor *in = p->tensors + op->in, *out = p->tensors + op->out;
    const int64_t width = op->panels * LANES, size = in->channels * op->taps * width;
    const int64_t total = out->rows / op->row_step, flat = in->rows == 1 && op->taps == 1;
    const int64_t pitch = flat ? 1 : in->rows + 2 * PAD;
    const float *from = flat ? in->data : room + PAD - op->shift;
    const float *film = op->film < 0 ? 0 : p->tensors[p->film].data + op->film;
    if (!flat) turn(in, room);
    for (int64_t g = thread; g * width < out->channels; g += p->threads) {
        const int64_t first = g * width;
        const int64_t at = g * size;
        const float *bias = op->bias ? op->bias + first : 0;
        for (int64_t row = 0, rows; row < total; row += rows) {
            const float *x = from + row * op->stride;
            for (rows = 16 / op->panels; rows > total - row;) rows /= 2;
            switch (op->panels * 32 + rows) {
                TILE(1, 16); TILE(1, 8); TILE(1, 4); TILE(1, 2); TILE(1, 1);
                TILE(2, 8); TILE(2, 4); TILE(2, 2); TILE(2, 1);
                TILE(4, 4); TILE(4, 2); TILE(4, 1);
                TILE(8, 2); TILE(8, 1);
            }
        }
    }
}

/* Group norm over rows and each group's channels (or none, groups = 0), activation, FiLM.

   A unit of channels holds whole vectors and whole groups; threads take units in turn. */
static void normalize(const program *p, const operation *op, int64_t thread) {
    const tensor *in = p->tensors + op->in, *out = p->tensors + op->out;
    const float *film = op->film < 0 ? 0 : p->tensors[p->film].data + op->film;
    const int64_t width = in->channels / (op->groups ? op->groups : 1);
    const int64_t unit = width % LANES == 0 ? width : LANES % width == 0 ? LANES : in->pitch;
    float scale[MAX_UNIT], shift[MAX_UNIT];
    for (int64_t begin = thread * unit; begin < in->channels; begin += p->threads * unit) {
        const int64_t end = begin + unit < in->channels ? begin + unit : in->channels;
        for (int64_t g = begin; op->groups && g < end; g += width) {
            float mean = 0, square = 0;
            for (int64_t t = 0; t < in->rows; t++)
                for (int64_t c = 0; c < width; c++) mean += in->data[t * in->pitch + g + c];
            mean /= (float)(in->rows * width);
            for (int64_t t = 0; t < in->rows; t++)
                for (int64_t c = 0; c < width; c++) {
                    const float d = in->data[t * in->pitch + g + c] - mean;
                    square += d * d;
                }
            const float norm =
                1.0f / __builtin_sqrtf(square / (float)(in->rows * width) + (float)op->eps);
            for (int64_t c = 0; c < width; c++) {
                const float gamma = op->weight ? op->weight[g + c] : 1;
                scale[g - begin + c] = norm * gamma;
                shift[g - begin + c] = (op->bias ? op->bias[g + c] : 0) - mean * norm * gamma;
            }
        }
        for (int64_t t = 0; t < in->rows; t++)
            for (int64_t c = begin; c < end; c += LANES) {
                vec y = load(in->data + t * in->pitch + c);
                if (op->groups) y = y * load(scale + c - begin) + load(shift + c - begin);
                y = activate(y, op->activation);
                if (film) y = y * (load(film + c) + (float)op->film_base) + load(film + in->channels + c);
                *(vec *)(out->data + t * out->pitch + c) = y;
            }
    }
}

/* out += factor * in, the factor 1 or one number of the FiLM. */
static void add(const program *p, const operation *op) {
    const tensor *in = p->tensors + op->in, *out = p->tensors + op->out;
    const float factor = op->film < 0 ? 1 : p->tensors[p->film].data[op->film];
    for (int64_t t = 0; t < in->rows; t++)
        for (int64_t c = 0; c < in->channels; c++)
            out->data[t * out->pitch + c] += factor * in->data[t * in->pitch + c];
}

/* One row of the step table in place: the sample x and the network's output y -> the next sample.
   x̂0 is kept for the next two rows; z is any finite noise where the row's factor is 0. */
static void move(const program *p, const row *k, const float *z) {
    const tensor *x = p->tensors + p->x, *y = p->tensors + p->output;
    const tensor *previous = p->tensors + p->previous, *earlier = p->tensors + p->earlier;
    for (int64_t t = 0; t < x->rows; t++, z += x->channels) {
        float *xs = x->data + t * x->pitch, *before = previous->data + t * previous->pitch;
        float *long_before = earlier->data + t * earlier->pitch;
        const float *ys = y->data + t * y->pitch;
        for (int64_t c = 0; c < x->channels; c++) {
            float x0 = (k->read_x * xs[c] + k->read_y * ys[c]) / k->read_divisor;
            x0 = x0 > k->clip ? k->clip : x0 < -k->clip ? -k->clip : x0; /* NaN stays NaN */
            xs[c] = k->x * xs[c] + k->y * ys[c] + k->x0 * x0 + k->previous * before[c] +
                    k->earlier * long_before[c] + k->z * z[c];
            long_before[c] = before[c];
            before[c] = x0;
        }
    }
}

/* All threads meet here; whoever waits long lets others run. */
static void meet(engine *e) {
    if (e->p.threads == 1) return;
    const long phase = atomic_load(&e->phase);
    if (atomic_fetch_add(&e->arrived, 1) == e->p.threads - 1) {
        atomic_store(&e->arrived, 0);
        atomic_store(&e->phase, phase + 1);
        return;
    }
    for (long spins = 0; atomic_load_explicit(&e->phase, memory_order_acquire) == phase; spins++)
        if (spins > SPINS) sched_yield();
}

static void perform(engine *e, const operation *ops, int64_t count, int64_t thread) {
    for (const operation *op = ops; op < ops + count; op++) {
        if (op->kind == CONV) convolve(&e->p, op, thread, e->room[thread]);
        else if (op->kind == NORM) normalize(&e->p, op, thread);
        else if (thread == 0) add(&e->p, op);
        meet(e);
    }
}

static void fill(const tensor *to, const float *from) {
    for (int64_t t = 0; t < to->rows; t++)
        memcpy(to->data + t * to->pitch, from + t * to->channels, 4 * (size_t)to->channels);
}

static void chain(engine *e, int64_t thread) {
    const program *p = &e->p;
    const tensor *x = p->tensors + p->x, *film = p->tensors + p->film;
    const tensor *given = film + 1; /* the observation's part of the FiLM, made once */
    if (thread == 0) {
        fill(p->tensors + p->observation, e->observation);
        fill(x, e->noise);
    }
    meet(e);
    perform(e, p->observe, p->observe_count, thread);
    for (int64_t k = 0; k < p->row_count; k++) {
        const float *time = p->time_films + k * film->channels;
        if (thread == 0)
            for (int64_t i = 0; i < film->channels; i++) film->data[i] = given->data[i] + time[i];
        meet(e);
        perform(e, p->denoise, p->denoise_count, thread);
        const float *z = e->noise + (p->rows[k].z ? k + 1 : 0) * x->rows * x->channels;
        if (thread == 0) move(p, p->rows + k, z);
    }
    meet(e);
}

typedef struct {
    engine *e;
    int64_t thread;
} worker;

static void *serve(void *argument) {
    worker w = *(worker *)argument;
    free(argument);
    for (int64_t seen = 0;;) {
        pthread_mutex_lock(&w.e->lock);
        while (w.e->job == seen && !w.e->quit) pthread_cond_wait(&w.e->wake, &w.e->lock);
        seen = w.e->job;
        const int64_t quit = w.e->quit;
        pthread_mutex_unlock(&w.e->lock);
        if (quit) return 0;
        chain(w.e, w.thread);
    }
}

engine *engine_open(const program *p) {
    engine *e = calloc(1, sizeof *e);
    e->p = *p;
    pthread_mutex_init(&e->lock, 0);
    pthread_cond_init(&e->wake, 0);
    int64_t largest = 0;
    for (int64_t i = 0; i < p->denoise_count; i++) {
        const tensor *in = p->tensors + p->denoise[i].in;
        const int64_t size = in->channels * (in->rows + 2 * PAD);
        if (size > largest) largest = size;
    }
    e->room = calloc((size_t)p->threads, sizeof *e->room);
    for (int64_t i = 0; i < p->threads; i++) e->room[i] = malloc(4 * (size_t)largest);
    e->workers = calloc((size_t)p->threads, sizeof *e->workers);
    for (int64_t i = 1; i < p->threads; i++) {
        worker *w = malloc(sizeof *w);
        *w = (worker){e, i};
        pthread_create(e->workers + i, 0, serve, w);
    }
    return e;
}

/* observation [T_o * D_o], noise [1 + K or 1][T_p * D_a] -> chunk [T_p * D_a]. */
void engine_run(engine *e, const float *observation, const float *noise, float *chunk) {
    e->observation = observation, e->noise = noise;
    if (e->p.threads > 1) {
        pthread_mutex_lock(&e->lock);
        e->job++;
        pthread_cond_broadcast(&e->wake);
        pthread_mutex_unlock(&e->lock);
    }
    chain(e, 0);
    const tensor *x = e->p.tensors + e->p.x;
    for (int64_t t = 0; t < x->rows; t++)
        memcpy(chunk + t * x->channels, x->data + t * x->pitch, 4 * (size_t)x->channels);
}

void engine_close(engine *e) {
    pthread_mutex_lock(&e->lock);
    e->quit = 1;
    pthread_cond_broadcast(&e->wake);
    pthread_mutex_unlock(&e->lock);
    for (int64_t i = 1; i < e->p.threads; i++) pthread_join(e->workers[i], 0);
    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->wake);
    for (int64_t i = 0; i < e->p.threads; i++) free(e->room[i]);
    free(e->room);
    free(e->workers);
    free(e);
}
