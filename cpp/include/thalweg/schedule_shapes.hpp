// The shapes of schedules: the ONLY definition of each one's values. Host and device. No allocation, no exceptions.
//
// t counts steps from the beginning of the piece; every form avoids cancellation (see each comment), because a
// schedule of 10^9 steps ends in differences that (1 + cos) / 2 cannot represent.
#pragma once

#include <cmath>
#include <cstdint>

#include "config.hpp"

namespace thalweg {

struct Cycle {
  std::int64_t index;     // of the cycle, from 0; -1: there is none here
  std::int64_t position;  // steps since its start
  std::int64_t length;    // steps
};

// sin and cos of x in [0, pi/4] by their Taylor series: + and * alone, so host, device and vector code agree.
THALWEG_HD double sin_series(double x) {
  const double z = x * x;
  double s = 1.0 / 355687428096000.0;  // 1/17!
  s = 1.0 / 1307674368000.0 - z * s;   // 1/15!
  s = 1.0 / 6227020800.0 - z * s;      // 1/13!
  s = 1.0 / 39916800.0 - z * s;        // 1/11!
  s = 1.0 / 362880.0 - z * s;          // 1/9!
  s = 1.0 / 5040.0 - z * s;            // 1/7!
  s = 1.0 / 120.0 - z * s;             // 1/5!
  s = 1.0 / 6.0 - z * s;               // 1/3!
  return x - x * (z * s);
}
THALWEG_HD double cos_series(double x) {
  const double z = x * x;
  double c = 1.0 / 6402373705728000.0;  // 1/18!
  c = 1.0 / 20922789888000.0 - z * c;   // 1/16!
  c = 1.0 / 87178291200.0 - z * c;      // 1/14!
  c = 1.0 / 479001600.0 - z * c;        // 1/12!
  c = 1.0 / 3628800.0 - z * c;          // 1/10!
  c = 1.0 / 40320.0 - z * c;            // 1/8!
  c = 1.0 / 720.0 - z * c;              // 1/6!
  c = 1.0 / 24.0 - z * c;               // 1/4!
  return 1.0 - z * (0.5 - z * c);
}

// Half a cosine wave from a (t = begin) to b (t = end), held outside:
// a sin^2(pi (end - t) / 2 n) + b sin^2(pi (t - begin) / 2 n), n = end - begin. The remainders are exact for integers,
// and the argument of the series stays below pi/4, so both weights have a small relative error everywhere.
THALWEG_HD double cosine_value(double a, double b, double begin, double end, double t) {
  constexpr double kHalfPi = 1.5707963267948966;
  const double left = end - t;
  const double done = t - begin;
  const bool early = done < left;
  const double x = kHalfPi * ((early ? done : left) / (end - begin));
  const double s = sin_series(x);
  const double c = cos_series(x);
  const double small = s * s;
  const double large = c * c;
  const double value = early ? a * large + b * small : a * small + b * large;
  return done <= 0 ? a : left <= 0 ? b : value;
}

// Straight line from a (t = begin) to b (t = end), held outside: a weighted mean, no difference a - b.
THALWEG_HD double linear_value(double a, double b, double begin, double end, double t) {
  const double value = (a * (end - t) + b * (t - begin)) / (end - begin);
  return t <= begin ? a : t >= end ? b : value;
}

// x^p with x = numerator / denominator: the rounding of the quotient, which p would multiply, is put back.
THALWEG_HD double quotient_power(double numerator, double denominator, double p) {
  const double x = numerator / denominator;
  const double lost = fma(-x, denominator, numerator) / denominator;  // exact value = x + lost
  return pow(x, p) * (1.0 + p * (lost / x));
}

// b + (a - b) (1 - t/n)^p, held after n. Both weights without cancellation: q and 1 - q = -expm1(p log1p(-t/n)).
THALWEG_HD double polynomial_value(double a, double b, double n, double p, double t) {
  if (t <= 0) return a;
  if (t >= n) return b;
  const double q = quotient_power(n - t, n, p);
  const double rest = q > 0.5 ? -expm1(p * log1p(-t / n)) : 1.0 - q;
  return a * q + b * rest;
}

THALWEG_HD double exponential_value(double a, double gamma, double t) { return a * pow(gamma, t); }

// a (b/a)^(t/n), held after n; the rounding of t/n is put back, because log(b/a) multiplies it.
THALWEG_HD double geometric_value(double a, double b, double n, double t) {
  if (t <= 0) return a;
  if (t >= n) return b;
  const double x = t / n;
  const double lost = fma(-x, n, t) / n;
  const double ratio = b / a;
  return a * (pow(ratio, x) * (1.0 + lost * log(ratio)));
}

// Cycle of SGDR: lengths t_0, t_0 m, t_0 m^2 ... in integers (a logarithm of floats misses exact boundaries).
THALWEG_HD Cycle sgdr_cycle(std::int64_t t_0, std::int64_t t_mult, std::int64_t t) {
  if (t_mult == 1) return {t / t_0, t % t_0, t_0};
  Cycle cycle{0, t, t_0};
  while (cycle.position >= cycle.length) {
    cycle.position -= cycle.length;
    ++cycle.index;
    // A length that would overflow is longer than any position that is left.
    cycle.length = cycle.length > INT64_MAX / t_mult ? INT64_MAX : cycle.length * t_mult;
  }
  return cycle;
}

// eta_min + (lr decay^i - eta_min) (1 + cos(pi t_cur / t_i)) / 2 (Loshchilov & Hutter 2016, equation 5, with decay).
THALWEG_HD double sgdr_value(double lr, double eta_min, std::int64_t t_0, std::int64_t t_mult, double decay,
                             std::int64_t t) {
  const Cycle cycle = sgdr_cycle(t_0, t_mult, t);
  const double peak = decay == 1.0 ? lr : lr * pow(decay, static_cast<double>(cycle.index));
  return cosine_value(peak, eta_min, 0.0, static_cast<double>(cycle.length), static_cast<double>(cycle.position));
}

// m cycles within n steps. even: cycle i starts at floor(i n / m). Otherwise every cycle has ceil(n / m) steps and the
// last one is cut short, as equation 2 of the snapshot paper (Huang et al. 2017) has it. n m < 2^63.
THALWEG_HD Cycle split_cycle(std::int64_t n, std::int64_t m, bool even, std::int64_t t) {
  if (!even) {
    const std::int64_t length = (n + m - 1) / m;
    const std::int64_t index = t / length;
    const std::int64_t cut = n - index * length;
    return {index, t % length, cut < length ? cut : length};
  }
  const std::int64_t index = ((t + 1) * m - 1) / n;
  const std::int64_t begin = index * n / m;
  return {index, t - begin, (index + 1) * n / m - begin};
}

THALWEG_HD double split_value(double lr, double eta_min, std::int64_t n, std::int64_t m, bool even, std::int64_t t) {
  if (t >= n) return eta_min;
  const Cycle cycle = split_cycle(n, m, even, t);
  const std::int64_t wave = even ? cycle.length : (n + m - 1) / m;
  return cosine_value(lr, eta_min, 0.0, static_cast<double>(wave), static_cast<double>(cycle.position));
}

enum class TriangularMode : std::int64_t { kTriangular = 0, kTriangular2 = 1, kExpRange = 2 };

// base + (max - base) w, w the triangle wave times 1, 2^-cycle or gamma^t (Smith 2015, section 3.1 and its code).
THALWEG_HD double triangular_value(double base, double max, std::int64_t up, std::int64_t down, TriangularMode mode,
                                   double gamma, std::int64_t t) {
  const std::int64_t cycle = t / (up + down);
  const std::int64_t r = t % (up + down);
  const double wave = r <= up ? static_cast<double>(r) / static_cast<double>(up)
                              : static_cast<double>(up + down - r) / static_cast<double>(down);
  const double scale = mode == TriangularMode::kTriangular ? 1.0
                       : mode == TriangularMode::kTriangular2
                           ? ldexp(1.0, static_cast<int>(cycle < 2000 ? -cycle : -2000))
                           : pow(gamma, static_cast<double>(t));
  return base + (max - base) * (wave * scale);
}

// Numbers of milestones m_i <= t; milestones ascend.
THALWEG_HD std::int64_t milestones_passed(const std::uint64_t* milestones, std::int64_t count, std::int64_t t) {
  std::int64_t low = 0;
  std::int64_t high = count;
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (static_cast<std::int64_t>(milestones[middle]) <= t) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace thalweg
