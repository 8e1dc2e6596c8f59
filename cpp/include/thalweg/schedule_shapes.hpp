// The shapes of schedules without cycles: the ONLY definition of each one's values. Host and device. No allocation, no
// exceptions.
//
// t counts steps from the beginning of the piece; every form avoids cancellation (see each comment), because a
// schedule of 10^9 steps ends in differences that (1 + cos) / 2 cannot represent.
#pragma once

#include <cmath>
#include <cstdint>

#include "config.hpp"
#include "philox.hpp"

namespace thalweg {

// The value kept between a and b, in either order: rounding must not leave the range that a ramp promises.
THALWEG_HD double between(double a, double b, double value) {
  const double low = a < b ? a : b;
  const double high = a < b ? b : a;
  return value < low ? low : value > high ? high : value;
}

// sin^2(pi/2 x) for y = x^2 in [0, 1/4], as y Q(y); Q is minimax, relative error 3e-17. Its constant term is split in
// two, so that only the last addition rounds. + and * alone: host, device and vector code agree.
constexpr double kSineSquaredFirst = 2.4674011002723395;
THALWEG_HD double sine_squared_rest(double y) {
  double q = 6.739527418179059e-08;
  q = q * y - 2.150601860425807e-06;
  q = q * y + 5.2318817170362996e-05;
  q = q * y - 0.0009647871200835576;
  q = q * y + 0.012903445692013642;
  q = q * y - 0.11766531517930116;
  q = q * y + 0.6676313844272912;
  q = q * y - 2.0293560632083842;
  return q * y + 1.5658117797683403e-16;
}
THALWEG_HD double sine_squared(double y) { return y * (kSineSquaredFirst + sine_squared_rest(y)); }

// sin^2(pi/2 x) = w + lost for the exact x = numerator / denominator in [0, 1/2]: lost are the roundings of x, of its
// square and of the last two operations, which a power of w would multiply.
THALWEG_HD double sine_squared_of(double numerator, double denominator, double* lost) {
  const double x = numerator / denominator;
  const double y = x * x;
  const double of_y = fma(x, x, -y) + 2.0 * x * (fma(-x, denominator, numerator) / denominator);
  const double rest = sine_squared_rest(y);
  const double sum = kSineSquaredFirst + rest;
  const double w = y * sum;
  const double slope = kSineSquaredFirst + y * (-4.0587 + y * (2.0029 - 0.47 * y));
  *lost = fma(y, sum, -w) + y * ((kSineSquaredFirst - sum) + rest) + slope * of_y;
  return w;
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

// What is left of a ramp and what is done: weights of its two ends, left + done = 1. Each has a small relative error of
// its own, so that neither end of a curve suffers from the other.
struct Share {
  double left;
  double done;
};

THALWEG_HD double mix(double a, double b, Share share) { return between(a, b, a * share.left + b * share.done); }

// Straight share of the ramp from begin to end; begin > end runs backwards.
THALWEG_HD Share share_at(double begin, double end, double t) {
  const double left = (end - t) / (end - begin);
  const double done = (t - begin) / (end - begin);
  return done <= 0 ? Share{1.0, 0.0} : left <= 0 ? Share{0.0, 1.0} : Share{left, done};
}

// 1 - sqrt(p) of a, as (1 - p) / (1 + sqrt(p)).
THALWEG_HD double one_minus_sqrt_value(double a, double b, double begin, double end, double t) {
  const Share share = share_at(begin, end, t);
  const double root = sqrt(share.done);
  return mix(a, b, {share.left / (1.0 + root), root});
}

// 1 - p^2 of a, as (1 - p) (1 + p).
THALWEG_HD double one_minus_square_value(double a, double b, double begin, double end, double t) {
  const Share share = share_at(begin, end, t);
  return mix(a, b, {share.left * (1.0 + share.done), share.done * share.done});
}

// REX (Chen et al. 2021): (1 - p) / (1 - p/2) of a.
THALWEG_HD double rex_value(double a, double b, double begin, double end, double t) {
  const Share share = share_at(begin, end, t);
  return mix(a, b, {2.0 * share.left / (1.0 + share.left), share.done / (1.0 + share.left)});
}

// Hyperbolic-tangent decay (Hsueh et al. 2019): (1 - tanh(x)) / 2 of a = 1 / (1 + e^2x), x from lower to upper in n
// steps, held after n. The roundings of x, which the exponential would multiply, are put back.
THALWEG_HD double tanh_value(double a, double b, double n, double lower, double upper, double t) {
  t = t < n ? t : n;
  const double first = lower * (n - t);
  const double second = upper * t;
  const double sum = first + second;
  const double part = sum - first;
  const double rounded = (first - (sum - part)) + (second - part) + fma(lower, n - t, -first) + fma(upper, t, -second);
  const double x = sum / n;
  const double lost = (fma(-x, n, sum) + rounded) / n;
  return mix(a, b, {1.0 / (1.0 + exp(2.0 * x) * (1.0 + 2.0 * lost)), 1.0 / (1.0 + exp(-2.0 * x) * (1.0 - 2.0 * lost))});
}

// a / (1 + rate t/n)
THALWEG_HD double inverse_time_value(double a, double rate, double n, double t) { return a / (1.0 + rate * t / n); }

// a sqrt(timescale / (t + shift))
THALWEG_HD double inverse_sqrt_value(double a, double timescale, double shift, double t) {
  return a * sqrt(timescale / (t + shift));
}

// From a towards b, which is never met: e^-x of a with x = (t - begin) / tau.
THALWEG_HD double approach_value(double a, double b, double tau, double begin, double t) {
  const double x = (t - begin) / tau;
  const double lost = fma(-x, tau, t - begin) / tau;
  return mix(a, b, {exp(-x) * (1.0 - lost), -expm1(-x)});
}

// The share of a clock that runs as (t/n)^k: k-decay (Zhang & Li 2020). 1 - (t/n)^k = -expm1(k log(t/n)), with the
// logarithm from the nearer end.
THALWEG_HD Share decayed_share(double n, double k, double t) {
  if (t <= 0) return {1.0, 0.0};
  if (t >= n) return {0.0, 1.0};
  const double done = quotient_power(t, n, k);
  if (done < 0.5) return {1.0 - done, done};
  const double x = (n - t) / n;
  const double lost = fma(-x, n, n - t) / n;
  const double logarithm = x < 0.5 ? log1p(-x) - lost / (1.0 - x) : log(t / n);
  const double y = k * logarithm;
  return {-(expm1(y) + fma(k, logarithm, -y) * done), done};
}

// Half a cosine wave as shares.
THALWEG_HD Share cosine_share(Share share) {
  const bool early = share.done < share.left;
  const double x = early ? share.done : share.left;
  const double w = sine_squared(x * x);
  return early ? Share{1.0 - w, w} : Share{w, 1.0 - w};
}

// left^p and 1 - left^p; the exact shares are left + left_lost and done + done_lost.
THALWEG_HD Share powered(Share share, double left_lost, double done_lost, double p) {
  if (share.left <= 0) return {0.0, 1.0};
  const double q = pow(share.left, p) * (1.0 + p * (left_lost / share.left));
  if (q <= 0.5) return {q, 1.0 - q};
  const bool early = share.done < share.left;
  const double logarithm =
      early ? log1p(-share.done) - done_lost / share.left : log(share.left) + left_lost / share.left;
  return {q, -expm1(p * logarithm)};
}

// ((1 + cos(pi t/n)) / 2)^p as shares; 0 < t < n.
THALWEG_HD Share powered_wave(double n, double p, double t) {
  const bool early = t < n - t;
  double lost = 0;
  const double w = sine_squared_of(early ? t : n - t, n, &lost);
  const double other = 1.0 - w;
  const double other_lost = ((1.0 - other) - w) - lost;
  return early ? powered({other, w}, other_lost, lost, p) : powered({w, other}, lost, other_lost, p);
}

// b + (a - b) w(u)^exponent, u = (t/n)^k, w(u) = 1 - u or (1 + cos(pi u)) / 2; held after n. Where both powers are
// there, the exponent multiplies the rounding of the first one.
THALWEG_HD double decayed_value(double a, double b, double n, double k, double exponent, bool wave, double t) {
  if (t <= 0) return a;
  if (t >= n) return b;
  if (wave && k == 1.0) return mix(a, b, powered_wave(n, exponent, t));
  Share share = k == 1.0 ? share_at(0.0, n, t) : decayed_share(n, k, t);
  if (wave) share = cosine_share(share);
  return mix(a, b, exponent == 1.0 ? share : powered(share, 0.0, 0.0, exponent));
}

// 1 + scale x, never below 0; x comes from the step's own Philox block, so that it needs no history. uniform: x in
// (-1, 1). Otherwise x is normal, its quantiles confined to (low, low + span).
THALWEG_HD double noise_value(double scale, bool uniform, double low, double span, std::int64_t seed, std::int64_t t) {
  const Philox4 block = philox_block(static_cast<std::uint64_t>(seed), 0, static_cast<std::uint64_t>(t));
  const std::uint64_t bits = (static_cast<std::uint64_t>(block.word[0]) << 32 | block.word[1]) >> 12;
  const double u = (static_cast<double>(bits) + 0.5) * 2.220446049250313e-16;  // 2^-52: exact, in (0, 1)
  const double value = 1.0 + scale * (uniform ? 2.0 * u - 1.0 : normal_quantile(low + u * span));
  return value > 0.0 ? value : 0.0;
}
}  // namespace thalweg
