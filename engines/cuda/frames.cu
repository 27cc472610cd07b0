// From a camera's frame to the network's input: colours, size, normalisation, planes. One thread makes one pixel.
//
// The input is the CPU's to the last bit: the frame is resized bilinearly in OpenCV's fixed point (half-pixel centres, no
// antialiasing, whole colours), luma and chroma become colours by ITU-R BT.601, limited range, in OpenCV's too.

enum Pixels { BGR, RGB, NV12, YUYV };
enum Numbers { FLOAT32, FLOAT16, INT8 };

struct Colour {
    float blue, green, red;
};

__device__ inline float byte_of(int fixed)
{
    int value = (fixed + (1 << 19)) >> 20;
    return (float)(value < 0 ? 0 : value > 255 ? 255 : value);
}

__device__ inline Colour colour_of(int luma, int cb, int cr)
{
    int y = 1220542 * (luma > 16 ? luma - 16 : 0), u = cb - 128, v = cr - 128;
    Colour colour = {byte_of(y + 2116026 * u), byte_of(y - 409993 * u - 852492 * v), byte_of(y + 1673527 * v)};
    return colour;
}

// `pitch` is the number of bytes from one row to the next. NV12's rows of chroma follow those of luma, two rows of pixels each.
__device__ inline Colour pixel_at(const unsigned char* frame, int pixels, int height, int pitch, int y, int x)
{
    const unsigned char* row = frame + (size_t)y * pitch;
    if (pixels == NV12) {
        const unsigned char* chroma = frame + (size_t)(height + y / 2) * pitch + x / 2 * 2;
        return colour_of(row[x], chroma[0], chroma[1]);
    }
    if (pixels == YUYV) {
        const unsigned char* pair = row + x / 2 * 4;
        return colour_of(pair[x % 2 * 2], pair[1], pair[3]);
    }
    const unsigned char* one = row + 3 * x;
    Colour colour = {(float)one[pixels == BGR ? 0 : 2], (float)one[1], (float)one[pixels == BGR ? 2 : 0]};
    return colour;
}

// Two neighbours, and their weights in 2048ths.
struct Pair {
    int first, second, of_first, of_second;
};

// Where output `index` reads among `from` inputs that are `scale` outputs' widths apart. Beyond the border, where both neighbours
// are the same, OpenCV leaves one of two columns out and adds two halves of a row, which may round to another colour.
__device__ inline Pair neighbours(int index, double scale, int from, bool adds_beyond)
{
    float position = (float)(((double)index + 0.5) * scale - 0.5);
    int low = (int)floorf(position), last = from - 1;
    float weight = position - (float)low;
    if (!adds_beyond && (low < 0 || low >= last))
        weight = 0.0f;
    Pair pair = {
        low < 0 ? 0 : low > last ? last : low, low + 1 < 0 ? 0 : low + 1 > last ? last : low + 1,
        (int)rintf((1.0f - weight) * 2048.0f), (int)rintf(weight * 2048.0f)};
    return pair;
}

__device__ inline float resized(float a, float b, float c, float d, Pair rows, Pair columns)
{
    int upper = (int)a * columns.of_first + (int)b * columns.of_second;
    int lower = (int)c * columns.of_first + (int)d * columns.of_second;
    return (float)(((rows.of_first * (upper >> 4) >> 16) + (rows.of_second * (lower >> 4) >> 16) + 2) >> 2);
}

__device__ inline void put(void* input, int numbers, size_t at, float value, float step)
{
    if (numbers == FLOAT32)
        ((float*)input)[at] = value;
    else if (numbers == FLOAT16)
        ((unsigned short*)input)[at] = half_of(value);
    else {
        float whole = rintf(value / step);
        ((signed char*)input)[at] = (signed char)(whole < -128.0f ? -128.0f : whole > 127.0f ? 127.0f : whole);
    }
}

// The picture fills rows `top` on and columns `left` on of the input, `inner_height`×`inner_width`; what it leaves free holds
// `fill`; a row of it is `row_scale` rows of the frame. The planes are blue, green, red, or red first with `red_first`; each is colour · scale − shift, and INT8 inputs count
// in `step`.
extern "C" __global__ void prepare(
    const unsigned char* frame, int pixels, int frame_height, int frame_width, int pitch,
    void* input, int numbers, int height, int width, int top, int left, int inner_height, int inner_width,
    double row_scale, double column_scale,
    float fill_0, float fill_1, float fill_2, float scale_0, float scale_1, float scale_2,
    float shift_0, float shift_1, float shift_2, int red_first, float step)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height)
        return;
    float planes[3] = {fill_0, fill_1, fill_2};
    if (y >= top && y < top + inner_height && x >= left && x < left + inner_width) {
        Pair rows = neighbours(y - top, row_scale, frame_height, true);
        Pair columns = neighbours(x - left, column_scale, frame_width, false);
        Colour a = pixel_at(frame, pixels, frame_height, pitch, rows.first, columns.first);
        Colour b = pixel_at(frame, pixels, frame_height, pitch, rows.first, columns.second);
        Colour c = pixel_at(frame, pixels, frame_height, pitch, rows.second, columns.first);
        Colour d = pixel_at(frame, pixels, frame_height, pitch, rows.second, columns.second);
        float blue = resized(a.blue, b.blue, c.blue, d.blue, rows, columns);
        float red = resized(a.red, b.red, c.red, d.red, rows, columns);
        planes[0] = red_first ? red : blue;
        planes[1] = resized(a.green, b.green, c.green, d.green, rows, columns);
        planes[2] = red_first ? blue : red;
    }
    size_t plane = (size_t)height * width, at = (size_t)y * width + x;
    put(input, numbers, at, planes[0] * scale_0 - shift_0, step);
    put(input, numbers, at + plane, planes[1] * scale_1 - shift_1, step);
    put(input, numbers, at + 2 * plane, planes[2] * scale_2 - shift_2, step);
}
