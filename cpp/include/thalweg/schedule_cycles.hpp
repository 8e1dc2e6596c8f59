// The shapes of schedules with cycles: the ONLY definition of where each cycle lies and of its values. Host and device.
// No allocation, no exceptions.
#pragma once

#include <cmath>
#include <cstdint>

#include "schedule_shapes.hpp"

namespace thalweg {

struct Cycle {
  std::int64_t index;     // of the cycle, from 0; -1: there is none here
  std::int64_t position;  // steps since its start
  std::int64_t length;    // steps
};

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

// Warm restarts, but for where the cycles begin.
struct Restart {
  double lr;            // peak of cycle 0
  double eta_min;       // foot of every cycle
  double decay;         // factor from peak to peak
  std::int64_t warmup;  // steps of the ramp that begins each cycle
  double start;         // value that this ramp leaves
  double begin;         // of the ramp, in steps of the cycle
  double end;
};

// Steps of warm-up in a cycle of this length: the last step always belongs to the wave.
THALWEG_HD std::int64_t restart_warmup(const Restart& r, std::int64_t length) {
  return r.warmup < length ? r.warmup : length - 1;
}

// eta_min + (lr decay^i - eta_min) (1 + cos(pi t_cur / t_i)) / 2 (Loshchilov & Hutter 2016, equation 5, with decay),
// after a ramp where there is one. `over`: the value is held where the curve stood after the cycle's last known step;
// at a boundary that is its foot: a run that goes a step too far must not jump to the peak.
THALWEG_HD double restart_value(const Restart& r, const Cycle& cycle, bool over) {
  const double peak = sgdr_peak(r.lr, r.eta_min, r.decay, cycle.index);
  const std::int64_t ramp = restart_warmup(r, cycle.length);
  const std::int64_t position = cycle.position + (over ? 1 : 0);
  if (position < ramp) {
    const double end = r.end - static_cast<double>(r.warmup - ramp);
    return end > r.begin ? linear_value(r.start, peak, r.begin, end, static_cast<double>(position)) : peak;
  }
  return cosine_value(peak, r.eta_min, 0.0, static_cast<double>(cycle.length - ramp),
                      static_cast<double>(position - ramp));
}

// From step `total` on (negative: never) the curve is held.
THALWEG_HD double sgdr_value(const Restart& r, std::int64_t t_0, std::int64_t t_mult, std::int64_t total,
                             std::int64_t t) {
  const bool over = total >= 0 && t >= total;
  return restart_value(r, sgdr_cycle(t_0, t_mult, over ? total - 1 : t), over);
}

// Cycle of a list of beginnings, the last of which is the end; they ascend from 0.
THALWEG_HD Cycle listed_cycle(const std::uint64_t* begins, std::int64_t count, std::int64_t t) {
  const std::int64_t index = milestones_passed(begins, count, t) - 1;
  const auto begin = static_cast<std::int64_t>(begins[index]);
  return {index, t - begin, static_cast<std::int64_t>(begins[index + 1]) - begin};
}

THALWEG_HD double listed_value(const Restart& r, const std::uint64_t* begins, std::int64_t count, std::int64_t t) {
  const auto total = static_cast<std::int64_t>(begins[count - 1]);
  const bool over = t >= total;
  return restart_value(r, listed_cycle(begins, count, over ? total - 1 : t), over);
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

}  // namespace thalweg
