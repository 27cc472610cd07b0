// From scores to the mask of the frame: bilinear upsampling and argmax, without ever storing the upsampled scores.
//
// The mask equals the CPU's in every pixel (`core/upsample_argmax.py`): products and sums are the same, in the same order, in
// single precision without contraction. `rank` looks at every score position once. Where all four corners of a cell have the same
// leading class, by more than rounding could move, `label` need look at nothing else.

enum Numbers { FLOAT32, FLOAT16 };

#define ROUNDING (16.0f * 1.1920929e-7f) // as in core/upsample_argmax.py, of the largest magnitude
#define UNDERFLOW (16.0f * 1.1754944e-38f)
#define LOWEST (-3.4028235e38f)

__device__ inline float score_at(const void* scores, int numbers, size_t at)
{
    return numbers == FLOAT32 ? ((const float*)scores)[at] : float_of(((const unsigned short*)scores)[at]);
}

// For every position of scores `classes`×`height`×`width`: the class that leads (the lowest id among equals), by how much, and the
// largest magnitude. `broken` becomes 1 where a score is not finite.
extern "C" __global__ void rank(
    const void* scores, int numbers, int classes, int height, int width,
    unsigned char* leading, float* lead, float* largest, int* broken)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height)
        return;
    size_t at = (size_t)y * width + x, plane = (size_t)height * width;
    float best = score_at(scores, numbers, at), second = LOWEST, magnitude = fabsf(best);
    int winner = 0, is_finite = isfinite(best);
    for (int id = 1; id < classes; ++id) {
        float value = score_at(scores, numbers, at + id * plane);
        is_finite = is_finite && isfinite(value);
        magnitude = fmaxf(magnitude, fabsf(value));
        second = fmaxf(second, fminf(best, value));
        if (value > best) {
            best = value;
            winner = id;
        }
    }
    leading[at] = (unsigned char)winner;
    lead[at] = best - second;
    largest[at] = magnitude;
    if (!is_finite)
        *broken = 1;
}

// Pixel (y, x) of the mask reads from rows low and high of its row, and columns low and high of its column, the second one with
// the weight that is given. Where there is a `picture` (H×W×3), the mask's colours are blended over the frame there: `paints` has
// blue, green, red of each class and whether it is drawn at all.
extern "C" __global__ void label(
    const void* scores, int numbers, int classes, int height, int width,
    const unsigned char* leading, const float* lead, const float* largest,
    const int* row_low, const int* row_high, const float* row_weight,
    const int* column_low, const int* column_high, const float* column_weight,
    unsigned char* mask, int mask_height, int mask_width,
    const unsigned char* frame, const unsigned char* paints, float opacity, unsigned char* picture)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= mask_width || y >= mask_height)
        return;
    size_t upper = (size_t)row_low[y] * width, lower = (size_t)row_high[y] * width;
    size_t a = upper + column_low[x], b = upper + column_high[x], c = lower + column_low[x], d = lower + column_high[x];
    size_t at = (size_t)y * mask_width + x;
    int winner = leading[a], is_settled = 0;
    if (winner == leading[b] && winner == leading[c] && winner == leading[d]) {
        float least = fminf(fminf(lead[a], lead[b]), fminf(lead[c], lead[d]));
        float most = fmaxf(fmaxf(largest[a], largest[b]), fmaxf(largest[c], largest[d]));
        is_settled = least > ROUNDING * most + UNDERFLOW;
    }
    if (!is_settled) {
        size_t plane = (size_t)height * width;
        float down = row_weight[y], across = column_weight[x], up = 1.0f - down, back = 1.0f - across, best = 0.0f;
        for (int id = 0; id < classes; ++id) {
            size_t from = id * plane;
            float above = score_at(scores, numbers, from + a) * back + score_at(scores, numbers, from + b) * across;
            float below = score_at(scores, numbers, from + c) * back + score_at(scores, numbers, from + d) * across;
            float value = above * up + below * down;
            if (id == 0 || value > best) {
                best = value;
                winner = id;
            }
        }
    }
    mask[at] = (unsigned char)winner;
    if (picture) {
        const unsigned char* paint = paints + 4 * winner;
        for (int channel = 0; channel < 3; ++channel) {
            unsigned char plain = frame[3 * at + channel];
            picture[3 * at + channel] =
                paint[3] ? (unsigned char)rintf(plain * (1.0f - opacity) + paint[channel] * opacity) : plain;
        }
    }
}
