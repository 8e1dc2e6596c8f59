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

// The value kept between a and b, in either order: rounding must not leave the range that a ramp promises.
THALWEG_HD double between(double a, double b, double value) {
  const double low = a < b ? a : b;
  const double high = a < b ? b : a;
  return value < low ? low : value > high ? high : value;
}

// sin^2(pi/2 x) for y = x^2 in [0, 1/4], as y Q(y); Q is minimax, relative error 3e-17. Its constant term is split in
// two, so that only the last addition rounds. + and * alone: host, device and vector code agree.
THALWEG_HD double sine_squared(double y) {
  double q = 6.739527418179059e-08;
  q = q * y - 2.150601860425807e-06;
  q = q * y + 5.2318817170362996e-05;
  q = q * y - 0.0009647871200835576;
  q = q * y + 0.012903445692013642;
  q = q * y - 0.11766531517930116;
  q = q * y + 0.6676313844272912;
  q = q * y - 2.0293560632083842;
  q = q * y + 1.5658117797683403e-16;
  return y * (2.4674011002723395 + q);
}

// Half a cosine wave from a (t = begin) to b (t = end), held outside: a (1 - w) + b w with
// w = sin^2(pi (t - begin) / 2 n), n = end - begin. The smaller weight is computed from the nearer end, whose distance
// is exact for integers and at most n / 2, so both weights have a small relative error everywhere.
THALWEG_HD double cosine_value(double a, double b, double begin, double end, double t) {
  const double left = end - t;
  const double done = t - begin;
  const bool early = done < left;
  const double x = (early ? done : left) / (end - begin);
  const double w = sine_squared(x * x);
  const double value = between(a, b, (early ? a : b) * (1.0 - w) + (early ? b : a) * w);
  return done <= 0 ? a : left <= 0 ? b : value;
}

// Straight line from a (t = begin) to b (t = end), held outside: a weighted mean, no difference a - b.
THALWEG_HD double linear_value(double a, double b, double begin, double end, double t) {
  const double value = between(a, b, (a * (end - t) + b * (t - begin)) / (end - begin));
  return t <= begin ? a : t >= end ? b : value;
}

// x^p with x = numerator / denominator: the rounding of the quotient, which p would multiply, is put back.
THALWEG_HD double quotient_power(double numerator, double denominator, double p) {
  const double x = numerator / denominator;
  const double lost = fma(-x, denominator, numerator) / denominator;  // exact value = x + lost
  return pow(x, p) * (1.0 + p * (lost / x));
}

// b + (a - b) (1 - t/n)^p, held after n, as a q + b (1 - q). Neither weight cancels: 1 - q = -expm1(p log(1 - t/n)),
// and the logarithm is taken of the smaller of t/n and 1 - t/n, which the quotient has to full precision.
THALWEG_HD double polynomial_value(double a, double b, double n, double p, double t) {
  if (t <= 0) return a;
  if (t >= n) return b;
  const double q = quotient_power(n - t, n, p);
  const double logarithm = t < n - t ? log1p(-t / n) : log((n - t) / n);
  const double rest = q > 0.5 ? -expm1(p * logarithm) : 1.0 - q;
  return between(a, b, a * q + b * rest);
}

THALWEG_HD double exponential_value(double a, double gamma, double t) { return a * pow(gamma, t); }

// a (b/a)^(t/n), held after n; the roundings of t/n and of b/a are put back to first order.
THALWEG_HD double geometric_value(double a, double b, double n, double t) {
  if (t <= 0) return a;
  if (t >= n) return b;
  const double x = t / n;
  const double ratio = b / a;
  const double lost = fma(-x, n, t) / n * log(ratio) + x * (fma(-ratio, a, b) / b);
  return between(a, b, a * (pow(ratio, x) * (1.0 + lost)));
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

// Peak of cycle i: lr decay^i, never below eta_min.
THALWEG_HD double sgdr_peak(double lr, double eta_min, double decay, std::int64_t index) {
  if (decay == 1.0) return lr;
  const double peak = lr * pow(decay, static_cast<double>(index));
  return decay < 1.0 && peak < eta_min ? eta_min : peak;
}

// eta_min + (lr decay^i - eta_min) (1 + cos(pi t_cur / t_i)) / 2 (Loshchilov & Hutter 2016, equation 5, with decay).
// From step `total` on (negative: never) the curve is held where it stood, at a boundary at the foot of the last
// cycle: a run that goes a step too far must not jump to the peak.
THALWEG_HD double sgdr_value(double lr, double eta_min, std::int64_t t_0, std::int64_t t_mult, double decay,
                             std::int64_t total, std::int64_t t) {
  const bool over = total >= 0 && t >= total;
  const Cycle cycle = sgdr_cycle(t_0, t_mult, over ? total - 1 : t);
  return cosine_value(sgdr_peak(lr, eta_min, decay, cycle.index), eta_min, 0.0, static_cast<double>(cycle.length),
                      static_cast<double>(cycle.position + (over ? 1 : 0)));
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

// As with sgdr_value, the curve is held where it stood at step n.
THALWEG_HD double split_value(double lr, double eta_min, std::int64_t n, std::int64_t m, bool even, std::int64_t t) {
  const bool over = t >= n;
  const Cycle cycle = split_cycle(n, m, even, over ? n - 1 : t);
  const std::int64_t wave = even ? cycle.length : (n + m - 1) / m;
  return cosine_value(lr, eta_min, 0.0, static_cast<double>(wave),
                      static_cast<double>(cycle.position + (over ? 1 : 0)));
}

enum class TriangularMode : std::int64_t { kTriangular = 0, kTriangular2 = 1, kExpRange = 2 };

// From base up to the peak and back; the peak's height over base is max - base times 1, 2^-cycle or gamma^t (Smith
// 2015, section 3.1 and its code). The peak is met exactly while the height is not scaled.
THALWEG_HD double triangular_value(double base, double max, std::int64_t up, std::int64_t down, TriangularMode mode,
                                   double gamma, std::int64_t t) {
  const std::int64_t cycle = t / (up + down);
  const std::int64_t r = t % (up + down);
  const double scale = mode == TriangularMode::kTriangular ? 1.0
                       : mode == TriangularMode::kTriangular2
                           ? ldexp(1.0, static_cast<int>(cycle < 2000 ? -cycle : -2000))
                           : pow(gamma, static_cast<double>(t));
  const double peak = scale == 1.0 ? max : base + (max - base) * scale;
  return r <= up ? linear_value(base, peak, 0.0, static_cast<double>(up), static_cast<double>(r))
                 : linear_value(peak, base, 0.0, static_cast<double>(down), static_cast<double>(r - up));
}

// Number of milestones m_i <= t; milestones ascend.
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
