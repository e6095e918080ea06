//! A clock that is wrong, for one process: a library that is loaded before libc and answers in its
//! place when the process asks for the time of day.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::judges::run;
use crate::workspace;

/// CLOCK_MONOTONIC, by which pauses are measured, is left alone, as it is where a real clock is
/// wrong.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    const char *offset = getenv("CLOCK_OFFSET");
    if (result == 0 && clock == CLOCK_REALTIME && offset) now->tv_sec += atol(offset);
    return result;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result) *result = now.tv_sec;
    return now.tv_sec;
}
"#;

/// Has the clock of `command` go ahead by this many seconds, or behind.
pub fn set_off(command: &mut Command, seconds: i64) {
    command.env("LD_PRELOAD", library()).env("CLOCK_OFFSET", seconds.to_string());
}

fn library() -> &'static PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let library = workspace::scratch("clock").join("clock.so");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-x", "c", "-", "-ldl", "-o"]).arg(&library);
        run(&mut compiler, SOURCE);
        library
    })
}
