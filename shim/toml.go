package shim

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// tomlScanner walks through the part of TOML that option tables are written in: keys with a
// string, a bool or an integer. Everything else of the language is stepped over, so that a file
// may hold more than we know.
type tomlScanner struct {
	text string
	at   int
}

// scanTOML calls set for each key of text with its value: a string, a bool, an int64, or nil for a
// value of any other kind. Tables are not told apart: key is the last part of a dotted key, without
// the name of the table it is in. It ends at the first error.
func scanTOML(text string, set func(key string, value any) error) error {
	s := &tomlScanner{text: strings.TrimPrefix(text, "\ufeff")}
	for {
		s.skipBlank(" \t\r\n")
		if s.at == len(s.text) {
			return nil
		}
		if s.text[s.at] == '[' {
			s.skipLine()
			continue
		}
		key, err := s.key()
		if err != nil {
			return s.errorf("%w", err)
		}
		value, err := s.value()
		if err != nil {
			return s.errorf("value of %s: %w", key, err)
		}
		if err := s.endOfValue(value); err != nil {
			return s.errorf("value of %s: %w", key, err)
		}
		if err := set(key, value); err != nil {
			return s.errorf("%w", err)
		}
	}
}

func (s *tomlScanner) errorf(format string, args ...any) error {
	line := 1 + strings.Count(s.text[:min(s.at, len(s.text))], "\n")
	return fmt.Errorf("line %d: "+format, append([]any{line}, args...)...)
}

// skipBlank steps over the characters of set and over comments.
func (s *tomlScanner) skipBlank(set string) {
	for s.at < len(s.text) {
		switch c := s.text[s.at]; {
		case c == '#':
			s.skipLine()
		case strings.IndexByte(set, c) >= 0:
			s.at++
		default:
			return
		}
	}
}

// skipLine steps to the end of the line, but not over it.
func (s *tomlScanner) skipLine() {
	if n := strings.IndexByte(s.text[s.at:], '\n'); n >= 0 {
		s.at += n
		return
	}
	s.at = len(s.text)
}

// take steps over prefix if it is next.
func (s *tomlScanner) take(prefix string) bool {
	if !strings.HasPrefix(s.text[s.at:], prefix) {
		return false
	}
	s.at += len(prefix)
	return true
}

// key reads a key up to and with the equals sign and returns its last part.
func (s *tomlScanner) key() (string, error) {
	for {
		s.spaces()
		part, err := s.keyPart()
		if err != nil {
			return "", err
		}
		s.spaces()
		switch {
		case s.take("."):
		case s.take("="):
			s.spaces()
			return part, nil
		default:
			return "", fmt.Errorf("key %q is not followed by an equals sign", part)
		}
	}
}

func (s *tomlScanner) spaces() {
	for s.take(" ") || s.take("\t") {
	}
}

func (s *tomlScanner) keyPart() (string, error) {
	if s.at < len(s.text) && (s.text[s.at] == '"' || s.text[s.at] == '\'') {
		return s.quoted()
	}
	start := s.at
	for s.at < len(s.text) && isBareKey(s.text[s.at]) {
		s.at++
	}
	if start == s.at {
		return "", fmt.Errorf("this is not a key")
	}
	return s.text[start:s.at], nil
}

func isBareKey(c byte) bool {
	return c == '_' || c == '-' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// value reads one value; nil stands for a kind that no option has.
func (s *tomlScanner) value() (any, error) {
	switch rest := s.text[s.at:]; {
	case strings.HasPrefix(rest, `"""`), strings.HasPrefix(rest, "'''"):
		return nil, s.skipLong()
	case strings.HasPrefix(rest, `"`), strings.HasPrefix(rest, "'"):
		return s.quoted()
	case strings.HasPrefix(rest, "["), strings.HasPrefix(rest, "{"):
		return nil, s.skipNested()
	}
	start := s.at
	for s.at < len(s.text) && strings.IndexByte(" \t\r\n#,]}", s.text[s.at]) < 0 {
		s.at++
	}
	switch word := s.text[start:s.at]; word {
	case "":
		return nil, fmt.Errorf("there is none")
	case "true":
		return true, nil
	case "false":
		return false, nil
	default:
		return integer(word), nil
	}
}

// integer returns word as an int64, or nil if it is not a whole number.
func integer(word string) any {
	if n, err := strconv.ParseInt(word, 0, 64); err == nil {
		return n
	}
	// Underscores between digits are TOML's, but ParseInt takes them only after a prefix like 0x.
	if n, err := strconv.ParseInt(strings.ReplaceAll(word, "_", ""), 10, 64); err == nil {
		return n
	}
	return nil
}

// quoted reads a string in one pair of quotes; between single quotes a backslash means itself.
func (s *tomlScanner) quoted() (string, error) {
	quote := s.text[s.at]
	for i := s.at + 1; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '\n':
			return "", fmt.Errorf("a string has no end on its line")
		case c == '\\' && quote == '"':
			i++
		case c == quote:
			raw := s.text[s.at+1 : i]
			s.at = i + 1
			if quote == '\'' {
				return raw, validText(raw)
			}
			return unescape(raw)
		}
	}
	return "", fmt.Errorf("a string has no end")
}

// unescape resolves the escapes of a basic string. Go's are those of TOML and a few more.
func unescape(raw string) (string, error) {
	text, err := strconv.Unquote(`"` + strings.ReplaceAll(raw, "\r", `\r`) + `"`)
	if err != nil {
		return "", fmt.Errorf("string %q has an escape that is not known", raw)
	}
	return text, validText(text)
}

func validText(text string) error {
	if !utf8.ValidString(text) {
		return fmt.Errorf("string %q is not UTF-8", text)
	}
	return nil
}

// skipLong steps over a string in three quotes.
func (s *tomlScanner) skipLong() error {
	quote := s.text[s.at : s.at+3]
	for s.at += 3; s.at < len(s.text); s.at++ {
		if s.take(quote) {
			for s.take(quote[:1]) { // up to two quotes may stand before the closing three
			}
			return nil
		}
		if quote[0] == '"' && s.text[s.at] == '\\' {
			s.at++
		}
	}
	s.at = len(s.text)
	return fmt.Errorf("a string has no end")
}

// skipNested steps over an array or an inline table.
func (s *tomlScanner) skipNested() error {
	for depth := 0; s.at < len(s.text); {
		s.skipBlank(" \t\r\n,=")
		if s.at == len(s.text) {
			break
		}
		switch c := s.text[s.at]; c {
		case '[', '{':
			depth++
			s.at++
		case ']', '}':
			depth--
			s.at++
			if depth == 0 {
				return nil
			}
		case '"', '\'':
			if _, err := s.value(); err != nil {
				return err
			}
		default:
			s.at++
		}
	}
	return fmt.Errorf("a bracket is not closed")
}

// endOfValue steps over the rest of the line, on which a value of a known kind must be alone.
func (s *tomlScanner) endOfValue(value any) error {
	if value == nil {
		s.skipLine() // a date may go on after a blank
		return nil
	}
	s.skipBlank(" \t\r")
	if s.at < len(s.text) && s.text[s.at] != '\n' {
		return fmt.Errorf("something follows it on its line")
	}
	return nil
}
