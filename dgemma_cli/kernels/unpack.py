"""Words into bfloat16 planes, in registers: once in Triton, once in PTX. Both give the same bits.

The PTX works on two words at once, as a register holds them, and gives a register of two values for each plane. A step
unpacks 23 billion 4-bit values; in the time that reading them takes, an H100 issues about 5 instructions a value, half
as many on its integer units. So values move by shifts and masks alone, two at a time. Instructions a value:

            to a float                          times scale   for the scale
    nvfp4   1.6: sign, exponent, mantissa       0.5           0.5
    int4    1.4: a whole number less 136        1.0           0.6
    int8    1.7: likewise                       1.0           0.1
    fp8     1.7: sign, exponent, mantissa       0.5

Counted in the machine code for compute capability 9.0, the whole loop of the grouped products takes 3.7 (nvfp4), 4.3
(int4) and 3.5 (fp8) a value, 1.3 to 1.6 of them on the integer units that do half as many a clock.

A product is written as ``fma`` with -0, since compute capability 8 has no other arithmetic on pairs of bfloat16.

A group's scale becomes one 32-bit word, made once for all words of the group:
- nvfp4: E2M1 bits put in their place in a bfloat16 are the value times 2^-126. The scale (E4M3, never negative) is
  taken times 2^118, twice side by side. So every product is a normal number, and exact; ``SUM_FACTOR`` makes up for the
  rest.
- int4, int8: the upper half is the scale cut to bfloat16, the lower half what is cut off. The two products are added
  and rounded at once, so the scale is not rounded (int8: its lower product is, to 16 bits below the sum's first).
"""

from __future__ import annotations

import triton
import triton.language as tl

SUM_FACTOR = {"nvfp4": 2.0**8}  # what sums over unpacked values must be multiplied by; 1 for the other formats

NVFP4_SCALE: tl.constexpr = tl.constexpr("""{
    .reg .b32 s, z, first, second;
    mov.b32 z, 0x80008000;
    mov.b32 first, 0x7f007f00;
    mov.b32 second, 0x77007700;
    mul.lo.u32 s, $1, 0x00100010;
    fma.rn.bf16x2 s, s, first, z;
    fma.rn.bf16x2 $0, s, second, z;
}""")

# One multiplication brings the nibble to bits 15 to 12, for the sign, and to bits 9 to 6, for the rest.
NVFP4: tl.constexpr = tl.constexpr("""{
    .reg .b32 v, w, z;
    mov.b32 z, 0x80008000;
    and.b32 v, $4, 0x000f000f;
    mul.lo.u32 v, v, 0x1040;
    and.b32 v, v, 0x81c081c0;
    fma.rn.bf16x2 $0, v, $5, z;
    and.b32 v, $4, 0x00f000f0;
    mul.lo.u32 v, v, 0x104;
    and.b32 v, v, 0x81c081c0;
    fma.rn.bf16x2 $1, v, $5, z;
    shr.b32 w, $4, 8;
    and.b32 v, w, 0x000f000f;
    mul.lo.u32 v, v, 0x1040;
    and.b32 v, v, 0x81c081c0;
    fma.rn.bf16x2 $2, v, $5, z;
    and.b32 v, w, 0x00f000f0;
    mul.lo.u32 v, v, 0x104;
    and.b32 v, v, 0x81c081c0;
    fma.rn.bf16x2 $3, v, $5, z;
}""")

INT4: tl.constexpr = tl.constexpr("""{
    .reg .b32 v, hi, lo, z, one, less;
    mov.b32 z, 0x80008000;
    mov.b32 one, 0x3f803f80;
    mov.b32 less, 0xc308c308;
    prmt.b32 hi, $5, 0, 0x3232;
    prmt.b32 lo, $5, 0, 0x1010;
    lop3.b32 v, $4, 0x000f000f, 0x43004300, 0xea;
    fma.rn.bf16x2 v, v, one, less;
    fma.rn.bf16x2 $0, v, lo, z;
    fma.rn.bf16x2 $0, v, hi, $0;
    shr.b32 v, $4, 4;
    lop3.b32 v, v, 0x000f000f, 0x43004300, 0xea;
    fma.rn.bf16x2 v, v, one, less;
    fma.rn.bf16x2 $1, v, lo, z;
    fma.rn.bf16x2 $1, v, hi, $1;
    shr.b32 v, $4, 8;
    lop3.b32 v, v, 0x000f000f, 0x43004300, 0xea;
    fma.rn.bf16x2 v, v, one, less;
    fma.rn.bf16x2 $2, v, lo, z;
    fma.rn.bf16x2 $2, v, hi, $2;
    shr.b32 v, $4, 12;
    lop3.b32 v, v, 0x000f000f, 0x43004300, 0xea;
    fma.rn.bf16x2 v, v, one, less;
    fma.rn.bf16x2 $3, v, lo, z;
    fma.rn.bf16x2 $3, v, hi, $3;
}""")

INT8: tl.constexpr = tl.constexpr("""{
    .reg .b32 v, b, hi, lo, z, minus;
    mov.b32 z, 0x80008000;
    mov.b32 minus, 0xbf80bf80;
    prmt.b32 hi, $3, 0, 0x3232;
    prmt.b32 lo, $3, 0, 0x1010;
    lop3.b32 v, $2, 0x007f007f, 0x43004300, 0xea;
    lop3.b32 b, $2, 0x00800080, 0x43804380, 0x6a;
    fma.rn.bf16x2 v, b, minus, v;
    fma.rn.bf16x2 $0, v, lo, z;
    fma.rn.bf16x2 $0, v, hi, $0;
    shr.b32 v, $2, 8;
    lop3.b32 b, v, 0x00800080, 0x43804380, 0x6a;
    lop3.b32 v, v, 0x007f007f, 0x43004300, 0xea;
    fma.rn.bf16x2 v, b, minus, v;
    fma.rn.bf16x2 $1, v, lo, z;
    fma.rn.bf16x2 $1, v, hi, $1;
}""")

FP8: tl.constexpr = tl.constexpr("""{
    .reg .b32 s, v, z, up;
    mov.b32 z, 0x80008000;
    mov.b32 up, 0x7b807b80;
    shl.b32 s, $2, 8;
    and.b32 s, s, 0x80008000;
    shl.b32 v, $2, 4;
    lop3.b32 v, v, 0x07f007f0, s, 0xea;
    fma.rn.bf16x2 $0, v, up, z;
    and.b32 s, $2, 0x80008000;
    shr.b32 v, $2, 4;
    lop3.b32 v, v, 0x07f007f0, s, 0xea;
    fma.rn.bf16x2 $1, v, up, z;
}""")


@triton.jit
def scale_word(scale, FORM: tl.constexpr, PTX: tl.constexpr):
    """Scales as they are stored -> int32 of the same shape, for ``unpack``."""
    if FORM == "nvfp4":
        scale = scale.to(tl.int32)
        if PTX:
            word = tl.inline_asm_elementwise(NVFP4_SCALE, "=&r,r", [scale], dtype=tl.int32, is_pure=True, pack=1)
        else:
            # E4M3 bits at the same place in a float32 are the scale times 2^-120.
            value = (scale << 20).to(tl.float32, bitcast=True) * 2.0**127 * 2.0**111
            upper = value.to(tl.int32, bitcast=True)
            word = upper | ((upper >> 16) & 0xFFFF)
    else:
        value = scale.to(tl.float32)
        upper = value.to(tl.int32, bitcast=True) & -65536
        rest = value - upper.to(tl.float32, bitcast=True)  # of a float16, it has 3 bits at the most
        word = upper | ((rest.to(tl.int32, bitcast=True) >> 16) & 0xFFFF)
    return word


@triton.jit
def unpack(words, scales, FORM: tl.constexpr, PTX: tl.constexpr):
    """int16 words and the ``scale_word`` of each (fp8: anything) -> a tuple of bfloat16 planes, each of their shape."""
    if FORM == "nvfp4":
        if PTX:
            planes = tl.inline_asm_elementwise(
                NVFP4,
                "=&r,=&r,=&r,=&r,r,r,r",
                [words, scales],
                dtype=(tl.bfloat16, tl.bfloat16, tl.bfloat16, tl.bfloat16),
                is_pure=True,
                pack=2,
            )
        else:
            planes = (
                _e2m1(words, 0, scales), _e2m1(words, 4, scales), _e2m1(words, 8, scales), _e2m1(words, 12, scales),
            )  # fmt: skip
    elif FORM == "int4":
        if PTX:
            planes = tl.inline_asm_elementwise(
                INT4,
                "=&r,=&r,=&r,=&r,r,r,r",
                [words, scales],
                dtype=(tl.bfloat16, tl.bfloat16, tl.bfloat16, tl.bfloat16),
                is_pure=True,
                pack=2,
            )
        else:
            planes = (
                _whole(words, 0, 15, scales), _whole(words, 4, 15, scales),
                _whole(words, 8, 15, scales), _whole(words, 12, 15, scales),
            )  # fmt: skip
    elif FORM == "int8":
        if PTX:
            planes = tl.inline_asm_elementwise(
                INT8, "=&r,=&r,r,r,r", [words, scales], dtype=(tl.bfloat16, tl.bfloat16), is_pure=True, pack=2
            )
        else:
            planes = (_whole(words, 0, 255, scales), _whole(words, 8, 255, scales))
    else:
        if PTX:
            planes = tl.inline_asm_elementwise(
                FP8, "=&r,=&r,r", [words], dtype=(tl.bfloat16, tl.bfloat16), is_pure=True, pack=2
            )
        else:
            planes = (_e4m3(words, 0), _e4m3(words, 8))
    return planes


@triton.jit
def _e2m1(words, SHIFT: tl.constexpr, scales):
    code = words.to(tl.int32) >> SHIFT
    value = (((code & 7) << 22) | ((code & 8) << 28)).to(tl.float32, bitcast=True)
    return (value * (scales & -65536).to(tl.float32, bitcast=True)).to(tl.bfloat16)


@triton.jit
def _e4m3(words, SHIFT: tl.constexpr):
    code = words.to(tl.int32) >> SHIFT
    value = (((code & 0x7F) << 20) | ((code & 0x80) << 24)).to(tl.float32, bitcast=True)
    return (value * 2.0**120).to(tl.bfloat16)


@triton.jit
def _whole(words, SHIFT: tl.constexpr, MASK: tl.constexpr, scales):
    value = ((words.to(tl.int32) >> SHIFT) & MASK).to(tl.float32) - (MASK + 1) // 2
    lower = (value * (scales << 16).to(tl.float32, bitcast=True)).to(tl.bfloat16).to(tl.float32)
    return (value * (scales & -65536).to(tl.float32, bitcast=True) + lower).to(tl.bfloat16)
