package main

import (
	"encoding/xml"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A plot is a picture of what has been measured. Its values are on a scale that begins at 0.
type plot struct {
	title, x, y string
	modes       []string // what the x of a point is the index of, drawn as bars; nil: x is a number, drawn as lines
	doubling    bool     // numbers are as far apart as their logarithms are
	series      []series
}

// A series is drawn as one path.
type series struct {
	name   string
	side   int  // decides about the colour
	dashed bool // for a second series of a side
	points []point
}

type point struct{ x, y float64 }

// The picture, and in it the area of the values, in pixels.
const (
	width, height = 640, 360
	left, right   = 70, 620
	top, bottom   = 62, 306
)

// svgStyle has colours for pages of either kind: the picture itself has no background. Sides after the
// fourth are drawn in the colour of the text.
const svgStyle = `text{font:12px sans-serif;fill:#333}.t{font-size:15px}.g{stroke:#888;stroke-opacity:.35}` +
	`.l{fill:none;stroke-width:2}.d{stroke-dasharray:5 4}.l,.b{stroke:#333}.b{fill:#333;stroke:none}` +
	`.l.s0{stroke:#0a6cc4}.l.s1{stroke:#d05a00}.l.s2{stroke:#15803d}.l.s3{stroke:#a21caf}` +
	`.b.s0{fill:#0a6cc4}.b.s1{fill:#d05a00}.b.s2{fill:#15803d}.b.s3{fill:#a21caf}` +
	`@media(prefers-color-scheme:dark){text{fill:#ddd}.l{stroke:#ddd}.b{fill:#ddd}` +
	`.l.s0{stroke:#5ab0ff}.l.s1{stroke:#ff9d4d}.l.s2{stroke:#4ade80}.l.s3{stroke:#e879f9}` +
	`.b.s0{fill:#5ab0ff}.b.s1{fill:#ff9d4d}.b.s2{fill:#4ade80}.b.s3{fill:#e879f9}}`

// svg draws the plot. The same values give the same bytes.
func (p *plot) svg() string {
	var out strings.Builder
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img">`+"\n",
		width, height, width, height)
	fmt.Fprintf(&out, "<title>%s</title>\n<style>%s</style>\n", escape(p.title), svgStyle)
	text(&out, left, 20, `class="t"`, p.title)
	text(&out, (left+right)/2, height-10, `text-anchor="middle"`, p.x)
	text(&out, 0, 0, `text-anchor="middle" transform="translate(16 `+coordinate((top+bottom)/2)+`) rotate(-90)"`, p.y)
	highest := p.drawScale(&out)
	p.drawX(&out)
	at := float64(left)
	for i, s := range p.series {
		at = drawName(&out, at, s)
		if p.modes == nil {
			p.drawLine(&out, s, highest)
		} else {
			p.drawBars(&out, i, highest)
		}
	}
	out.WriteString("</svg>\n")
	return out.String()
}

// drawScale draws the lines of the scale, and returns the value of the highest.
func (p *plot) drawScale(out *strings.Builder) (highest float64) {
	most := 0.0
	for _, s := range p.series {
		for _, point := range s.points {
			most = max(most, point.y)
		}
	}
	step := niceStep(most)
	highest = math.Max(1, math.Ceil(most/step-1e-9)) * step
	for i := range int(math.Round(highest/step)) + 1 {
		v := float64(i) * step
		y := yAt(v, highest)
		fmt.Fprintf(out, `<line class="g" x1="%d" y1="%s" x2="%d" y2="%s"/>`+"\n", left, coordinate(y), right, coordinate(y))
		text(out, left-6, y+4, `text-anchor="end"`, value(v))
	}
	return highest
}

// niceStep divides a scale that reaches up to most into about five steps of 1, 2 or 5.
func niceStep(most float64) float64 {
	if most <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(most/5)))
	for _, factor := range []float64{1, 2, 5} {
		if power*factor >= most/5 {
			return power * factor
		}
	}
	return power * 10
}

// drawX names what is along the x axis.
func (p *plot) drawX(out *strings.Builder) {
	for i, m := range p.modes {
		text(out, p.xAt(float64(i)), bottom+18, `text-anchor="middle"`, m)
	}
	last := math.Inf(-1)
	for _, x := range p.xs() {
		// What has no room has no name.
		if at := p.xAt(x); at-last >= 24 {
			text(out, at, bottom+18, `text-anchor="middle"`, value(x))
			last = at
		}
	}
}

// xs are the numbers along the x axis: those of the first series, since all have the same.
func (p *plot) xs() (xs []float64) {
	if p.modes != nil || len(p.series) == 0 {
		return nil
	}
	for _, point := range p.series[0].points {
		xs = append(xs, point.x)
	}
	return xs
}

// xAt is where a number, or the middle of a mode, is.
func (p *plot) xAt(x float64) float64 {
	if p.modes != nil {
		return left + (right-left)*(x+0.5)/float64(len(p.modes))
	}
	all := p.xs()
	last := all[len(all)-1]
	if !p.doubling {
		return left + (right-left)*x/last
	}
	if last <= all[0] {
		return (left + right) / 2
	}
	return left + (right-left)*math.Log(x/all[0])/math.Log(last/all[0])
}

func yAt(v, highest float64) float64 { return bottom - (bottom-top)*v/highest }

// drawLine draws a line from point to point, with a mark at each.
func (p *plot) drawLine(out *strings.Builder, s series, highest float64) {
	var path strings.Builder
	for i, point := range s.points {
		command := "L"
		if i == 0 {
			command = "M"
		}
		x, y := p.xAt(point.x), yAt(point.y, highest)
		path.WriteString(command + coordinate(x) + " " + coordinate(y))
	}
	fmt.Fprintf(out, `<path class="l s%d%s" d="%s"/>`+"\n", s.side, s.dashes(), path.String())
	for _, point := range s.points {
		fmt.Fprintf(out, `<circle class="b s%d" cx="%s" cy="%s" r="3"/>`+"\n",
			s.side, coordinate(p.xAt(point.x)), coordinate(yAt(point.y, highest)))
	}
}

// drawBars draws the bars of a series, each with its value.
func (p *plot) drawBars(out *strings.Builder, index int, highest float64) {
	s := p.series[index]
	wide := float64(right-left) / float64(len(p.modes)) / (float64(len(p.series)) + 1)
	var path strings.Builder
	for _, point := range s.points {
		x := p.xAt(point.x) + wide*(float64(index)-float64(len(p.series))/2)
		y := yAt(point.y, highest)
		fmt.Fprintf(&path, "M%s %dV%sh%sV%dZ", coordinate(x), bottom, coordinate(y), coordinate(wide-2), bottom)
		text(out, x+wide/2-1, y-4, `text-anchor="middle"`, value(point.y))
	}
	fmt.Fprintf(out, `<path class="b s%d" d="%s"/>`+"\n", s.side, path.String())
}

// drawName draws a piece of a series and its name, and returns where there is room for the next.
func drawName(out *strings.Builder, x float64, s series) float64 {
	fmt.Fprintf(out, `<line class="l s%d%s" x1="%s" y1="40" x2="%s" y2="40"/>`+"\n",
		s.side, s.dashes(), coordinate(x), coordinate(x+24))
	text(out, x+30, 44, "", s.name)
	return x + 54 + 7*float64(len(s.name))
}

func (s series) dashes() string {
	if s.dashed {
		return " d"
	}
	return ""
}

func text(out *strings.Builder, x, y float64, attributes, words string) {
	if attributes != "" {
		attributes = " " + attributes
	}
	fmt.Fprintf(out, `<text x="%s" y="%s"%s>%s</text>`+"\n", coordinate(x), coordinate(y), attributes, escape(words))
}

// escape makes text of XML.
func escape(s string) string {
	var out strings.Builder
	_ = xml.EscapeText(&out, []byte(s)) // a Builder takes all
	return out.String()
}

// coordinate is a number of pixels: tenths suffice.
func coordinate(v float64) string { return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) }

// value is a number as people read it, with three digits that count.
func value(v float64) string {
	if v >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
