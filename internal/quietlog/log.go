// Package log stands in for github.com/containerd/log inside the shim.
//
// ttrpc reports a handful of connection errors through that package, which would link logrus
// into the process that every container pays for. This one has the same few names and hands
// each line to log/slog. The go.mod of the project replaces the original by it.
package log

import (
	"context"
	"fmt"
	"log/slog"
)

// Fields are further facts of a log line.
type Fields map[string]any

// Entry is a log line under construction. It is immutable and safe for concurrent use.
type Entry struct {
	ctx   context.Context //nolint:containedctx // an Entry lives for one line, as in the original
	attrs []any
}

// G returns an Entry for ctx. It never returns nil.
func G(ctx context.Context) *Entry { return &Entry{ctx: ctx} }

// WithError returns a copy of e that also reports err.
func (e *Entry) WithError(err error) *Entry { return e.WithField("err", err) }

// WithField returns a copy of e that also reports key.
func (e *Entry) WithField(key string, value any) *Entry {
	return e.WithFields(Fields{key: value})
}

// WithFields returns a copy of e that also reports fields.
func (e *Entry) WithFields(fields Fields) *Entry {
	attrs := append([]any(nil), e.attrs...)
	for k, v := range fields {
		attrs = append(attrs, slog.Any(k, v))
	}
	return &Entry{ctx: e.ctx, attrs: attrs}
}

// Error writes the line at level error.
func (e *Entry) Error(args ...any) {
	slog.Default().ErrorContext(e.ctx, fmt.Sprint(args...), e.attrs...)
}

// Errorf writes the line at level error.
func (e *Entry) Errorf(format string, args ...any) { e.Error(fmt.Sprintf(format, args...)) }
