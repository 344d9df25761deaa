// What watching a job's system calls costs (consumer/run/watch.h): a library of 300 lines compiled by rustc alone, in the sandbox,
// and in the sandbox and watched, in turns. Usage: kiln-bench-watch SYSROOT OBSERVER_OBJECT KILN_RUN [ROUNDS]
//
// Milliseconds from before the start to the end; of the processors, those of rustc, or of kiln-run and bubblewrap without the job.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "consumer/preload/observe.h"
#include "consumer/run/client.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"
#include "lib/base/proc.h"
#include "lib/rustc/paths.h"
#include "tests/bench/times.h"

#define ROUNDS_MAX 200
#define FUNCTIONS 60 // of five lines
#define DEADLINE_MS 120000

enum arm { BARE, SANDBOX, WATCHED, ARMS };
static const char *const names[ARMS] = {"rustc alone", "sandbox", "sandbox, watched"};

struct bench {
    const char *sysroot, *observer, *run;
    char dir[64];
    int sources;
};

static void stop(const char *what, const struct kiln_err *err) {
    fprintf(stderr, "kiln-bench-watch: %s: %s\n", what, err->text);
    exit(EXIT_FAILURE);
}

static void make_sources(struct bench *bench) {
    struct kiln_err err = {0};
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(1 << 20);
    for (int i = 0; i < FUNCTIONS; i++)
        kiln_buf_addf(&text, "pub fn sum_%d(words: &[String]) -> usize {\n    let mut map = std::collections::HashMap::new();\n"
                             "    for word in words { *map.entry(word.len() + %d).or_insert(0) += 1; }\n"
                             "    map.values().sum()\n}\n", i, i);
    strcpy(bench->dir, "/dev/shm/kiln-bench-XXXXXX"); // a tmpfs, as the sandbox writes to
    if (!mkdtemp(bench->dir) || chmod(bench->dir, 0755) || (bench->sources = open(bench->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 ||
        mkdirat(bench->sources, "out", 0755) ||
        kiln_fs_write_file(bench->sources, "lib.rs", text.data, text.len, 0644, &err))
        stop("sources", &err);
}

static void compile_bare(const struct bench *bench, const char *rustc) {
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1 << 20), errout = KILN_BUF_INIT(1 << 20);
    char *argv[] = {(char *)"rustc", (char *)"--crate-name=made", (char *)"--edition=2021", (char *)"--crate-type=lib",
                    (char *)"lib.rs", (char *)"--emit=dep-info,link", (char *)"--out-dir=out", NULL};
    char *envp[] = {(char *)"PATH=/usr/bin", NULL};
    const struct kiln_proc_options options = {.program = rustc, .argv = argv, .envp = envp, .cwd = bench->dir};
    struct kiln_err err = {0};
    int status;
    if (kiln_proc_run(&options, kiln_clock_ms() + DEADLINE_MS, &out, &errout, &status, &err) || status)
        stop(kiln_buf_text(&errout), &err);
}

static void bind_path(struct kiln_run_spec *spec, const char *path, const char *dest, bool file) {
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        stop(path, &(struct kiln_err){.text = "cannot be opened"});
    spec->binds[spec->binds_count++] = (struct kiln_run_bind){.fd = (uint32_t)fd, .dest = (char *)dest, .file = file};
}

static void compile_in_sandbox(const struct bench *bench, int watch) {
    struct kiln_err err = {0};
    struct kiln_run_bind binds[4];
    struct kiln_run_link links[] = {{(char *)"/lib", (char *)"usr/lib"}, {(char *)"/lib64", (char *)"usr/lib64"}};
    kiln_autofree char *place = kiln_place(KILN_PLACE_SYSROOT, NULL), *cwd = kiln_place(KILN_PLACE_WORKSPACE, NULL),
                       *out = kiln_place(KILN_PLACE_TARGET, NULL), *observer = kiln_place(KILN_PLACE_OBSERVER, NULL),
                       *object = kiln_place(KILN_PLACE_OBSERVER, "libkiln-observe.so"), *rustc = kiln_path_join(place, "bin/rustc");
    struct kiln_run_file preload = {(char *)"/etc/ld.so.preload", (unsigned char *)object, strlen(object)};
    char *argv[] = {rustc, (char *)"--crate-name=made", (char *)"--edition=2021", (char *)"--crate-type=lib", (char *)"lib.rs",
                    (char *)"--emit=dep-info,link", (char *)"--out-dir", out};
    char *env[] = {(char *)"PATH=/usr/bin"};
    struct kiln_run_spec spec = {
        .binds = binds, .links = links, .links_count = 2, .files = &preload, .files_count = 1, .argv = argv, .argc = 8, .env = env,
        .env_count = 1, .cwd = cwd, .out_dir = out, .observer_dir = observer, .tmp_dir = (char *)"/tmp", .out_bytes = 1u << 30,
        .tmp_bytes = 1u << 30, .observer_bytes = 2 * KILN_OBSERVE_LOG_BYTES, .inodes = 10000, .wall_ms = DEADLINE_MS,
        .memory_bytes = 4ull << 30, .file_bytes = 1u << 30, .text_bytes = 1u << 20, .processes = 256,
        .watch_fd = watch < 0 ? 0 : (uint32_t)watch,
    };
    bind_path(&spec, "/usr", "/usr", false);
    bind_path(&spec, bench->sysroot, place, false);
    bind_path(&spec, bench->observer, object, true);
    bind_path(&spec, bench->dir, cwd, false);
    const struct kiln_run_options options = {.program = bench->run, .deadline_ms = kiln_clock_ms() + DEADLINE_MS};
    struct kiln_run_session session = KILN_RUN_SESSION_INIT;
    struct kiln_run_report report = {0};
    if (kiln_run_start(&options, &spec, &session, &err) || kiln_run_wait(&session, kiln_clock_ms() + DEADLINE_MS, &report, &err))
        stop("sandbox", &err);
    if (report.end != KILN_END_EXIT || report.value)
        stop("the job ended otherwise", &(struct kiln_err){.text = ""});
    kiln_run_report_release(&report);
    kiln_run_release(&session);
    for (size_t i = 0; i < spec.binds_count; i++)
        close((int)spec.binds[i].fd);
}

static void run_arm(const struct bench *bench, enum arm arm, const char *rustc, double *time, double *cpu) {
    kiln_autofd int watch = arm == WATCHED ? memfd_create("watch", MFD_CLOEXEC) : -1;
    double start = bench_now_ms(), cpu_start = bench_children_cpu_ms();
    if (arm == BARE)
        compile_bare(bench, rustc);
    else
        compile_in_sandbox(bench, watch);
    *time = bench_now_ms() - start;
    *cpu = bench_children_cpu_ms() - cpu_start;
}

int main(int argc, char **argv) {
    static double times[ARMS][ROUNDS_MAX + 1], cpus[ARMS][ROUNDS_MAX + 1]; // the first of each only warms up
    if (argc < 4) {
        fputs("usage: kiln-bench-watch SYSROOT OBSERVER_OBJECT KILN_RUN [ROUNDS]\n", stderr);
        return 2;
    }
    long rounds = argc > 4 ? strtol(argv[4], NULL, 10) : 20;
    rounds = rounds < 1 ? 1 : rounds > ROUNDS_MAX ? ROUNDS_MAX : rounds;
    struct bench bench = {.sysroot = argv[1], .observer = argv[2], .run = argv[3]};
    kiln_autofree char *rustc = kiln_path_join(argv[1], "bin/rustc");
    make_sources(&bench);
    for (long round = 0; round <= rounds; round++)
        for (int arm = 0; arm < ARMS; arm++)
            run_arm(&bench, (enum arm)arm, rustc, &times[arm][round], &cpus[arm][round]);
    for (int arm = 0; arm < ARMS; arm++) {
        double *time = times[arm] + 1, *cpu = cpus[arm] + 1;
        qsort(time, (size_t)rounds, sizeof *time, bench_by_value);
        qsort(cpu, (size_t)rounds, sizeof *cpu, bench_by_value);
        printf("%-17s min %7.1f  median %7.1f ms; processors: min %7.1f  median %7.1f ms\n", names[arm], time[0], time[rounds / 2],
               cpu[0], cpu[rounds / 2]);
    }
    close(bench.sources);
    kiln_fs_remove_tree(AT_FDCWD, bench.dir, NULL);
    return 0;
}
