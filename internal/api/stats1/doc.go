// Package stats1 has the metrics of a container in cgroup version 1, as package api has other messages.
package stats1
