package main

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"
)

// quantile returns the value below which the part q of the values lies; 0 if there are none.
func quantile[T cmp.Ordered](values []T, q float64) T {
	if len(values) == 0 {
		var none T
		return none
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// median returns the middle of the values; NaN if there are none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	return quantile(values, 0.5)
}

// ratio returns the median of a's ratios to b, round by round: what the machine did in a round met
// both. It is NaN if there are no rounds.
func ratio(a, b []float64) float64 {
	ratios := make([]float64, min(len(a), len(b)))
	for i := range ratios {
		ratios[i] = a[i] / b[i]
	}
	return median(ratios)
}

// figure is a value in a table: "-" for one that was not measured.
func figure(decimals int, value float64) string {
	if math.IsNaN(value) {
		return "-"
	}
	return strconv.FormatFloat(value, 'f', decimals, 64)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
