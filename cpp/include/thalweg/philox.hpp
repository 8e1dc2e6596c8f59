// Philox4x32-10 counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11)
// and its transform to normal variates by + - * / and sqrt alone, so that host and device agree to the bit.
// Host and device. No state: the caller owns key and counter.
#pragma once

#include <cmath>
#include <cstdint>

#include "config.hpp"
#include "dtype.hpp"

namespace thalweg {

struct Philox4 {
  std::uint32_t word[4];
};

THALWEG_HD Philox4 philox4x32(Philox4 counter, std::uint32_t key0, std::uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = 0xD2511F53ull * counter.word[0];
    const std::uint64_t product1 = 0xCD9E8D57ull * counter.word[2];
    counter = Philox4{
        {static_cast<std::uint32_t>(product1 >> 32) ^ counter.word[1] ^ key0, static_cast<std::uint32_t>(product1),
         static_cast<std::uint32_t>(product0 >> 32) ^ counter.word[3] ^ key1, static_cast<std::uint32_t>(product0)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// Natural logarithm of a normal x in (0, 1] from its exponent and the series of atanh: no libm, so no
// difference between host and device. Relative error below 4e-16.
THALWEG_HD double portable_log(double x) {
  const std::uint64_t bits = bit_cast<std::uint64_t>(x);
  int exponent = static_cast<int>(bits >> 52) - 1023;
  double mantissa = bit_cast<double>((bits & 0xFFFFFFFFFFFFFull) | 0x3FF0000000000000ull);  // [1, 2)
  if (mantissa > 1.4142135623730951) {
    mantissa *= 0.5;
    exponent += 1;
  }
  const double s = (mantissa - 1.0) / (mantissa + 1.0);  // |s| <= 0.1716
  const double s2 = s * s;
  double series = 0.0;
  for (int k = 23; k >= 3; k -= 2) series = (series + 1.0 / k) * s2;
  return exponent * 0.6931471805599453 + 2.0 * (s + s * series);
}

// Standard normal quantile of u in (0, 1): algorithm AS 241, PPND16 (Wichura, Applied Statistics 37, 1988). Three
// rational functions: of q = u - 1/2 where |q| <= kQuantileCentre, and of r = sqrt(-log(the tail's probability)) up to
// 5 and above.
constexpr double kQuantileCentre = 0.425;

THALWEG_HD double quantile_centre(double q) {
  const double r = 0.180625 - q * q;
  return q *
         (((((((2509.0809287301226727 * r + 33430.575583588128105) * r + 67265.770927008700853) * r +
              45921.953931549871457) *
                 r +
             13731.693765509461125) *
                r +
            1971.5909503065514427) *
               r +
           133.14166789178437745) *
              r +
          3.387132872796366608) /
         (((((((5226.495278852545925 * r + 28729.085735721942674) * r + 39307.89580009271061) * r +
              21213.794301586595867) *
                 r +
             5394.1960214247511077) *
                r +
            687.1870074920579083) *
               r +
           42.313330701600911252) *
              r +
          1.0);
}

THALWEG_HD double quantile_tail(double r) {
  r -= 1.6;
  return (((((((7.7454501427834140764e-4 * r + 0.0227238449892691845833) * r + 0.24178072517745061177) * r +
              1.27045825245236838258) *
                 r +
             3.64784832476320460504) *
                r +
            5.7694972214606914055) *
               r +
           4.6303378461565452959) *
              r +
          1.42343711074968357734) /
         (((((((1.05075007164441684324e-9 * r + 5.475938084995344946e-4) * r + 0.0151986665636164571966) * r +
              0.14810397642748007459) *
                 r +
             0.68976733498510000455) *
                r +
            1.6763848301838038494) *
               r +
           2.05319162663775882187) *
              r +
          1.0);
}

THALWEG_HD double quantile_far_tail(double r) {
  r -= 5.0;
  return (((((((2.01033439929228813265e-7 * r + 2.71155556874348757815e-5) * r + 0.0012426609473880784386) * r +
              0.026532189526576123093) *
                 r +
             0.29656057182850489123) *
                r +
            1.7848265399172913358) *
               r +
           5.4637849111641143699) *
              r +
          6.6579046435011037772) /
         (((((((2.04426310338993978564e-15 * r + 1.4215117583164458887e-7) * r + 1.8463183175100546818e-5) * r +
              7.868691311456132591e-4) *
                 r +
             0.0148753612908506148525) *
                r +
            0.13692988092273580531) *
               r +
           0.59983220655588793769) *
              r +
          1.0);
}

THALWEG_HD double normal_quantile(double u) {
  const double q = u - 0.5;
  if (fabs(q) <= kQuantileCentre) return quantile_centre(q);
  const double r = sqrt(-portable_log(q < 0 ? u : 1.0 - u));
  const double value = r <= 5.0 ? quantile_tail(r) : quantile_far_tail(r);
  return q < 0 ? -value : value;
}

// Block number `block` of stream `stream` under `seed`: four words.
THALWEG_HD Philox4 philox_block(std::uint64_t seed, std::uint64_t stream, std::uint64_t block) {
  const Philox4 counter{{static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32),
                         static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)}};
  return philox4x32(counter, static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32));
}

// The middle of one of 2^32 equal parts of (0, 1), exactly. Such a u is at least 2^-33: the far tail is never reached.
THALWEG_HD double uniform_of(std::uint32_t word) {
  const double wide = static_cast<double>(static_cast<std::int32_t>(word ^ 0x80000000u)) + 2147483648.0;  // vectorises
  return (wide + 0.5) * 2.3283064365386962890625e-10;                                                     // 2^-32
}

THALWEG_HD float normal_of(std::uint32_t word) { return static_cast<float>(normal_quantile(uniform_of(word))); }

// Normal variate number `index` of stream `stream` under `seed`: four come from one Philox block.
THALWEG_HD float philox_normal(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  return normal_of(philox_block(seed, stream, index >> 2).word[index & 3]);
}

}  // namespace thalweg
