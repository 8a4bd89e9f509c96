package api

import "time"

// Time returns t for a message. The zero time is sent as such, since a missing field reads as 1970.
func Time(t time.Time) *Timestamp {
	return &Timestamp{Seconds: t.Unix(), Nanos: int32(t.Nanosecond())} //nolint:gosec // below 10^9
}

// AsTime returns the time that Time was given, in UTC; of nil it is 1970.
func (t *Timestamp) AsTime() time.Time { return time.Unix(t.GetSeconds(), int64(t.GetNanos())).UTC() }
