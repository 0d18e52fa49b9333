/* The learner's loop as one would write it by hand: one chain, one handoff per update, float32, averages kept lazily.
 * Sizes are compile-time constants (-DSTATES ...), so that the compiler can do its best. */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct {
  const float *accept, *reward, *discount, *cumulative;
  const int32_t *alias, *next_state, *observation, *agent;
  const uint8_t *available;
} tables;

typedef struct {
  int32_t s, o, a, next_s, next_o;
  float reward, discount;
} handoff;

static inline uint64_t draw64(uint64_t *state) { /* xorshift64* */
  uint64_t x = *state;
  x ^= x >> 12;
  x ^= x << 25;
  x ^= x >> 27;
  *state = x;
  return x * 0x2545F4914F6CDD1DULL;
}

static inline float unit(uint32_t bits) { return (float)(bits >> 8) * 0x1p-24f; }

static inline handoff draw(const tables *t, int32_t s, uint64_t *state) {
  handoff h;
  const uint64_t first = draw64(state), second = draw64(state);
  const float u = unit((uint32_t)first), v = unit((uint32_t)(first >> 32)), w = unit((uint32_t)(second >> 32));
  h.s = s;
  h.o = t->observation[s];
  int32_t a = 0;
  for (int i = 0; i < OPTIONS; i++) a += u >= t->cumulative[h.o * OPTIONS + i];
  h.a = a;
  const int32_t row = (s * OPTIONS + a) * OUTCOMES;
  int32_t b = (int32_t)(v * OUTCOMES);
  if (w >= t->accept[row + b]) b = t->alias[row + b];
  h.next_s = t->next_state[row + b];
  h.next_o = t->observation[h.next_s];
  h.reward = t->reward[row + b];
  h.discount = t->discount[row + b];
  return h;
}

static inline float best(const float *q, const uint8_t *available) {
  float m = -FLT_MAX;
  for (int i = 0; i < OPTIONS; i++) m = (available[i] && q[i] > m) ? q[i] : m;
  return m;
}

static inline float share(int32_t *touched, int32_t k) {
  const float part = k > 0 ? 1.0f - (float)*touched / (float)k : 0.0f;
  *touched = k;
  return part;
}

void tabular(const tables *t, int32_t handoffs, float step, uint64_t state, float *q, float *average, int32_t *touched,
             float *visits) {
  int32_t s = (int32_t)(draw64(&state) % STATES);
  for (int32_t k = 0; k < handoffs; k++) {
    const handoff h = draw(t, s, &state);
    float *row = q + h.o * OPTIONS, *mean = average + h.o * OPTIONS;
    const float m = best(q + h.next_o * OPTIONS, t->available + h.next_o * OPTIONS);
    const float part = share(touched + h.o, k);
    for (int i = 0; i < OPTIONS; i++) mean[i] += part * (row[i] - mean[i]);
    row[h.a] += step * (h.reward + h.discount * m - row[h.a]);
    visits[h.o * OPTIONS + h.a] += 1.0f;
    s = h.next_s;
  }
}

#ifdef WIDTH
#define SIZE (INPUTS * WIDTH + WIDTH + WIDTH * OPTIONS + OPTIONS)

/* Block: kernel [INPUTS][WIDTH], bias [WIDTH], output kernel [OPTIONS][WIDTH], output bias [OPTIONS]. */
static inline void forward(const float *restrict p, const float *restrict x, float *restrict hidden, float *restrict q) {
  const float *bias = p + INPUTS * WIDTH, *out = bias + WIDTH, *out_bias = out + WIDTH * OPTIONS;
  memcpy(hidden, bias, sizeof(float) * WIDTH);
  for (int f = 0; f < INPUTS; f++)
    for (int w = 0; w < WIDTH; w++) hidden[w] += x[f] * p[f * WIDTH + w];
  for (int w = 0; w < WIDTH; w++) hidden[w] = tanhf(hidden[w]);
  for (int i = 0; i < OPTIONS; i++) {
    float total = 0.0f;
    for (int w = 0; w < WIDTH; w++) total += hidden[w] * out[i * WIDTH + w];
    q[i] = out_bias[i] + total;
  }
}

void network(const tables *t, const float *inputs, int32_t handoffs, float step, uint64_t state, float *params,
             float *average, int32_t *touched, float *visits) {
  int32_t s = (int32_t)(draw64(&state) % STATES);
  float hidden[WIDTH] __attribute__((aligned(64))), other[WIDTH] __attribute__((aligned(64))), q[OPTIONS], next[OPTIONS];
  for (int32_t k = 0; k < handoffs; k++) {
    const handoff h = draw(t, s, &state);
    const int32_t i = t->agent[h.o];
    float *p = params + (int64_t)i * SIZE, *mean = average + (int64_t)i * SIZE;
    const float *x = inputs + h.o * INPUTS;
    forward(params + (int64_t)t->agent[h.next_o] * SIZE, inputs + h.next_o * INPUTS, other, next);
    forward(p, x, hidden, q);
    const float m = best(next, t->available + h.next_o * OPTIONS);
    const float part = share(touched + i, k);
    const float push = step * (h.reward + h.discount * m - q[h.a]);
    for (int j = 0; j < SIZE; j++) mean[j] += part * (p[j] - mean[j]);
    float *bias = p + INPUTS * WIDTH, *out = bias + WIDTH + h.a * WIDTH;
    for (int w = 0; w < WIDTH; w++) {
      const float back = push * out[w] * (1.0f - hidden[w] * hidden[w]);
      out[w] += push * hidden[w];
      hidden[w] = back;
    }
    for (int w = 0; w < WIDTH; w++) bias[w] += hidden[w];
    for (int f = 0; f < INPUTS; f++)
      for (int w = 0; w < WIDTH; w++) p[f * WIDTH + w] += x[f] * hidden[w];
    p[SIZE - OPTIONS + h.a] += push;
    visits[h.o * OPTIONS + h.a] += 1.0f;
    s = h.next_s;
  }
}
#endif
