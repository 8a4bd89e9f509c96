package wire

import (
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/runtime/protoiface"
)

// Message is a message that reads and writes itself. Its methods are generated.
type Message interface {
	protoreflect.ProtoMessage
	// MessageName is the message's full name, as in the URL of an Any.
	MessageName() string
	// Append appends the message in the wire format.
	Append(b []byte) []byte
	// Read sets the fields that an encoded message has, and adds to lists and maps. If it fails some
	// are set.
	Read(b []byte) error
	// Reset empties the message.
	Reset()
}

// pointer is a Message that is a pointer to T.
type pointer[T any] interface {
	*T
	Message
}

// Marshal returns a message in the wire format; not nil, even if it is empty.
func Marshal(m Message) []byte { return m.Append([]byte{}) }

// Unmarshal sets m to an encoded message.
func Unmarshal(b []byte, m Message) error {
	m.Reset()
	return m.Read(b)
}

// Reflect returns what the library's proto.Marshal and proto.Unmarshal need to know of a message.
func Reflect(m Message) protoreflect.Message { return reflection{m: m} }

// reflection is a message as the library sees it. All methods but those below are missing, and panic:
// the library has no use for them where a message has methods of its own.
type reflection struct {
	protoreflect.Message
	m Message
}

func (r reflection) Interface() protoreflect.ProtoMessage { return r.m }
func (r reflection) IsValid() bool                        { return true }
func (r reflection) ProtoMethods() *protoiface.Methods    { return &methods }

// methods are those of every message.
var methods = protoiface.Methods{
	Flags: protoiface.SupportMarshalDeterministic | protoiface.SupportUnmarshalDiscardUnknown,
	Marshal: func(in protoiface.MarshalInput) (protoiface.MarshalOutput, error) {
		return protoiface.MarshalOutput{Buf: in.Message.(reflection).m.Append(in.Buf)}, nil
	},
	Unmarshal: func(in protoiface.UnmarshalInput) (protoiface.UnmarshalOutput, error) {
		err := in.Message.(reflection).m.Read(in.Buf)
		return protoiface.UnmarshalOutput{Flags: protoiface.UnmarshalInitialized}, err
	},
	CheckInitialized: func(protoiface.CheckInitializedInput) (out protoiface.CheckInitializedOutput, _ error) {
		return out, nil // nothing is required
	},
}
