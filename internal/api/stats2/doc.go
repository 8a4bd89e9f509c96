// Package stats2 has the metrics of a container in cgroup version 2, as package api has other messages.
package stats2
