// Half precision as bits, for kernels that move it and compute in single precision. The conversions are IEEE 754's, rounding to
// nearest and ties to even; the device has an instruction for each.

#ifdef __CUDA_ARCH__

__device__ inline unsigned short half_of(float value)
{
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

__device__ inline float float_of(unsigned short bits)
{
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

#else

__device__ inline unsigned short half_of(float value)
{
    union {
        float value;
        unsigned bits;
    } whole = {value};
    unsigned sign = whole.bits >> 16 & 0x8000u, rest = whole.bits & 0x7fffffffu;
    if (rest > 0x7f800000u)
        return (unsigned short)(sign | 0x7e00u); // not a number
    if (rest >= 0x47800000u)
        return (unsigned short)(sign | 0x7c00u); // from 65536 on: infinite
    if (rest < 0x38800000u) {                    // below the normal numbers: whole multiples of 2^-24
        whole.bits = rest;
        return (unsigned short)(sign | (unsigned)rintf(whole.value * 16777216.0f));
    }
    unsigned kept = rest - 0x38000000u; // the exponent's bias is 15 instead of 127
    return (unsigned short)(sign | (kept + 0x0fffu + (kept >> 13 & 1u)) >> 13);
}

__device__ inline float float_of(unsigned short bits)
{
    unsigned exponent = bits >> 10 & 0x1fu, fraction = bits & 0x3ffu;
    union {
        unsigned bits;
        float value;
    } whole = {(exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13};
    float value = exponent ? whole.value : (float)fraction / 16777216.0f;
    return bits & 0x8000u ? -value : value;
}

#endif
