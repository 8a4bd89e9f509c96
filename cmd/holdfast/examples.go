package main

// examples are shown by -h of a verb. Read only.
var examples = map[string]string{
	"run": `  holdfast run -t                                  a shell on the programs of this machine
  holdfast run -d --id web BUNDLE                  a container that stays
  holdfast run -t --rootfs /srv/alpine /bin/sh     a command in a root directory`,
	"create":     `  holdfast create --id web BUNDLE && holdfast start web`,
	"exec":       `  holdfast exec -t web sh`,
	"attach":     `  holdfast attach web`,
	"kill":       `  holdfast kill --signal TERM web`,
	"update":     `  holdfast update --memory 268435456 --cpus 1.5 web`,
	"checkpoint": `  holdfast checkpoint --image /srv/web.img --exit web`,
	"resize":     `  holdfast resize --width 120 --height 40 web`,
	"ps":         `  holdfast ps --json web | jq '.[].pid'`,
	"events":     `  holdfast events --follow web`,
	"timeline": `  holdfast timeline web
  holdfast timeline --trace web >trace.json        for ui.perfetto.dev`,
	"why":     `  holdfast why web`,
	"ls":      `  holdfast ls --json | jq '.shims[].pid'`,
	"stats":   `  holdfast stats --watch`,
	"metrics": `  holdfast metrics >new.tmp && mv new.tmp holdfast.prom`,
	"gc": `  holdfast gc                                      tells
  holdfast gc --yes                                removes`,
	"doctor": `  holdfast doctor || echo something is to be done`,
}
