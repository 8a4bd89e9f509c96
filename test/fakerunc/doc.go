// Command fakerunc takes the place of runc in tests and does as a script says: it fails, hangs,
// lies and dies on demand. Without a script it behaves like a runtime whose containers are single
// processes without any isolation.
//
// # The script
//
// The script is the file fakerunc.json in the working directory, which is the bundle. It is read
// anew by each call:
//
//	{
//	  "create":  {"child": {"life": "50ms", "exit": 3}},
//	  "exec/e1": {"error": "exec failed: no luck"},
//	  "exec":    {"console": "never"},
//	  "*":       {"record": "calls"}
//	}
//
// A key is a verb; "exec/ID" stands for one exec (known by its pid file, exec.ID.pid or ID.pid),
// before "exec". "*" stands for all verbs that have no entry. What a step can hold is described at
// type Step, what a process can do at type Child. Durations are strings such as "1.5s".
//
// Everything happens in this order: record; pause "begin"; sleep; stdout, stderr, log, files; hook;
// error or the real runtime or the verb itself (which, for create, restore and exec, is: start the
// process, pause "born", console, pid file); pause "end"; hang; signal; exit.
//
// # Pause points
//
// A step with "pause": "POINT" makes the file VERB.POINT.reached in the bundle and goes on when
// VERB.POINT.go appears there. So a test can do things at an exact moment, such as killing the
// shim. After a minute fakerunc gives up with exit status 97.
//
// # The processes
//
// The process of a container or an exec is fakerunc itself, started under a hidden verb in a
// session of its own. Nobody waits for it: when the command that started it ends, it becomes the
// child of the nearest subreaper, as with a real runtime. The init of a created container waits
// for start; all others begin to live at once.
//
// # State
//
// The state of a container is the directory ROOT/ID: its init in pid, its execs in execs, each with
// its pid and when it started, so that nobody else is ever taken for it; and start, a FIFO on which
// a created init waits. kill, delete and ps work on these; pause, resume, update and checkpoint
// only succeed (checkpoint without --leave-running also kills init). Errors have runc's words.
package main
