package shim

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// maxText bounds one string that jsonScanner keeps. All we look for are ids.
const maxText = 64 << 10

// jsonScanner reads JSON value by value, in constant memory. It also takes some text that is no
// JSON; the runtime, which reads the same file, does not.
type jsonScanner struct{ r *bufio.Reader }

// readByte is ReadByte, for places where the text must not end.
func (s *jsonScanner) readByte() (byte, error) {
	c, err := s.r.ReadByte()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return c, err
}

// next returns the next byte that is not a blank.
func (s *jsonScanner) next() (byte, error) {
	for {
		c, err := s.readByte()
		if err != nil || strings.IndexByte(" \t\r\n", c) < 0 {
			return c, err
		}
	}
}

// object reads an object, or null, and calls member for each key; member has to read the value.
// When it returns false, the rest of the object is left unread.
func (s *jsonScanner) object(member func(key string) (more bool, err error)) error {
	c, err := s.next()
	if err != nil {
		return err
	}
	if c == 'n' {
		return s.skipWord()
	}
	if c != '{' {
		return fmt.Errorf("found %q where an object begins", c)
	}
	for {
		key, end, err := s.key()
		if err != nil || end {
			return err
		}
		if more, err := member(key); err != nil || !more {
			return err
		}
	}
}

// key reads up to the next value of an object, or to its end. A key that is too long to be one of
// ours is returned empty.
func (s *jsonScanner) key() (key string, end bool, err error) {
	c, err := s.next()
	if err == nil && c == ',' {
		c, err = s.next()
	}
	if err != nil || c == '}' {
		return "", true, err
	}
	if c != '"' {
		return "", true, fmt.Errorf("found %q where a key or the end of an object is due", c)
	}
	if key, _, err = s.body(); err != nil {
		return "", true, err
	}
	if c, err = s.next(); err == nil && c != ':' {
		err = fmt.Errorf("found %q after the key %q", c, key)
	}
	return key, false, err
}

// text reads a string that is not longer than maxText.
func (s *jsonScanner) text() (string, error) {
	c, err := s.next()
	if err != nil {
		return "", err
	}
	if c != '"' {
		return "", fmt.Errorf("found %q where a string is due", c)
	}
	text, cut, err := s.body()
	if err == nil && cut {
		err = fmt.Errorf("string %w: the limit is %d bytes", errTooLarge, maxText)
	}
	return text, err
}

// body reads a string after its opening quote. It keeps nothing of one that is too long.
func (s *jsonScanner) body() (text string, cut bool, err error) {
	raw, escaped := []byte{'"'}, false
	for after := false; ; { // after a backslash
		c, err := s.readByte()
		if err != nil {
			return "", false, err
		}
		if cut = len(raw) > maxText; !cut {
			raw = append(raw, c)
		}
		switch {
		case after:
			after = false
		case c == '\\':
			after, escaped = true, true
		case c == '"' && cut:
			return "", true, nil
		case c == '"':
			text, err = unquote(raw, escaped)
			return text, false, err
		}
	}
}

// unquote resolves the escapes of a string in its quotes.
func unquote(raw []byte, escaped bool) (string, error) {
	if !escaped {
		return string(raw[1 : len(raw)-1]), nil
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return "", fmt.Errorf("string %s: %w", raw, err)
	}
	return text, nil
}

// skip reads any value.
func (s *jsonScanner) skip() error {
	c, err := s.next()
	if err != nil {
		return err
	}
	switch c {
	case '"':
		return s.skipText()
	case '{', '[':
		return s.skipNested()
	case ',', ':', '}', ']':
		return fmt.Errorf("found %q where a value is due", c)
	}
	return s.skipWord()
}

// skipText reads the rest of a string.
func (s *jsonScanner) skipText() error {
	for {
		c, err := s.readByte()
		if err == nil && c == '\\' {
			_, err = s.readByte()
			c = 0
		}
		if err != nil || c == '"' {
			return err
		}
	}
}

// skipNested reads the rest of an object or array, of which the opening bracket has been read.
func (s *jsonScanner) skipNested() error {
	for depth := 1; depth > 0; {
		c, err := s.readByte()
		if err != nil {
			return err
		}
		switch c {
		case '"':
			err = s.skipText()
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// skipWord reads the rest of a number, true, false or null, but not what follows it.
func (s *jsonScanner) skipWord() error {
	for {
		c, err := s.r.ReadByte()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if strings.IndexByte(" \t\r\n,:]}", c) >= 0 {
			return s.r.UnreadByte()
		}
	}
}
