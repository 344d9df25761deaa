// What a sandbox costs: starting one with the full policy around a program that does nothing, and compiling in one, beside the same
// without, interleaved. Usage: kiln-bench-start KILN_RUN SYSROOT [ROUNDS]; prints one line of JSON, times in milliseconds.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "consumer/run/client.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "tests/bench/times.h"

#define ROUNDS 100
#define COMPILES_PER_ROUNDS 4 // a compile in every fourth round
#define FUNCTIONS 60          // of five lines each

enum series { TRUE_BARE, TRUE_WALLS, TRUE_WHOLE, TRUE_CPU, VERSION_BARE, COMPILE_BARE, COMPILE_WHOLE, SERIES };
static const char *const names[SERIES] = {"true", "walls_standing", "true_in_sandbox", "true_in_sandbox_cpu", "rustc_version", "compile", "compile_in_sandbox"};

struct bench {
    const char *run;
    char rustc[512];
    char place[64]; // sources and outputs of the compiles outside
    int usr, sysroot, sources;
    double *times[SERIES];
    size_t counts[SERIES];
};

static void note(struct bench *bench, enum series series, double ms) { bench->times[series][bench->counts[series]++] = ms; }

static int fail(const char *what, const char *why) {
    fprintf(stderr, "kiln-bench-start: %s: %s\n", what, why);
    return -1;
}

static int run_bare(struct bench *bench, enum series series, char *const argv[]) {
    char *const env[] = {(char *)"PATH=/usr/bin", NULL};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    double started = bench_now_ms();
    pid_t pid;
    int status, rc = posix_spawn(&pid, argv[0], &actions, NULL, argv, env);
    posix_spawn_file_actions_destroy(&actions);
    if (rc || waitpid(pid, &status, 0) != pid || status)
        return fail(argv[0], rc ? strerror(rc) : "did not end well");
    note(bench, series, bench_now_ms() - started);
    return 0;
}

// `walls`: the series of the time until all walls stood; SERIES: not noted.
static int run_inside(struct bench *bench, enum series walls, enum series whole, char **argv, size_t argc) {
    char *env[] = {(char *)"PATH=/usr/bin"};
    struct kiln_run_bind binds[] = {{(uint32_t)bench->usr, (char *)"/usr", false},
                                    {(uint32_t)bench->sysroot, (char *)"/bench/sysroot", false},
                                    {(uint32_t)bench->sources, (char *)"/bench/sources", false}};
    struct kiln_run_link links[] = {{(char *)"/lib", (char *)"usr/lib"}, {(char *)"/lib64", (char *)"usr/lib64"}};
    const struct kiln_run_spec spec = {
        .binds = binds, .binds_count = 3, .links = links, .links_count = 2, .argv = argv, .argc = argc, .env = env, .env_count = 1,
        .cwd = (char *)"/bench/sources", .out_dir = (char *)"/bench/out", .observer_dir = (char *)"/bench/observer",
        .tmp_dir = (char *)"/tmp", .out_bytes = 1u << 30, .tmp_bytes = 1u << 30, .observer_bytes = 16u << 20, .inodes = 10000,
        .wall_ms = 60000, .memory_bytes = 4ull << 30, .file_bytes = 1u << 30, .text_bytes = 1u << 20, .processes = 2048};
    const struct kiln_run_options options = {.program = bench->run, .deadline_ms = kiln_clock_ms() + 60000};
    struct kiln_run_session session = KILN_RUN_SESSION_INIT;
    struct kiln_run_report report = {0};
    struct kiln_err err = {0};
    double started = bench_now_ms();
    int rc = kiln_run_start(&options, &spec, &session, &err);
    double standing = bench_now_ms();
    if (rc == 0)
        rc = kiln_run_wait(&session, kiln_clock_ms() + 60000, &report, &err);
    double ended = bench_now_ms();
    if (rc == 0 && (report.end != KILN_END_EXIT || report.value))
        rc = fail(argv[0], report.text);
    else if (rc)
        fail(argv[0], err.text);
    if (rc == 0 && walls != SERIES)
        note(bench, walls, standing - started);
    if (rc == 0)
        note(bench, whole, ended - started);
    kiln_run_report_release(&report);
    kiln_run_release(&session);
    return rc;
}

static int compare_compiles(struct bench *bench) {
    char source[128];
    snprintf(source, sizeof source, "%s/lib.rs", bench->place);
    char *outside[] = {bench->rustc, (char *)"--edition=2021", (char *)"--crate-type=lib", source, (char *)"--out-dir", bench->place, NULL};
    char *inside[] = {(char *)"/bench/sysroot/bin/rustc", (char *)"--edition=2021", (char *)"--crate-type=lib", (char *)"lib.rs",
                      (char *)"--out-dir", (char *)"/bench/out"};
    int rc = run_bare(bench, COMPILE_BARE, outside);
    return rc ? rc : run_inside(bench, SERIES, COMPILE_WHOLE, inside, sizeof inside / sizeof *inside);
}

static int run_round(struct bench *bench, size_t round) {
    char *nothing[] = {(char *)"/usr/bin/true", NULL};
    char *version[] = {bench->rustc, (char *)"-V", NULL};
    int rc = run_bare(bench, TRUE_BARE, nothing);
    double cpu_ms = bench_children_cpu_ms();
    if (rc == 0)
        rc = run_inside(bench, TRUE_WALLS, TRUE_WHOLE, nothing, 1);
    if (rc == 0)
        note(bench, TRUE_CPU, bench_children_cpu_ms() - cpu_ms);
    if (rc == 0)
        rc = run_bare(bench, VERSION_BARE, version);
    if (rc == 0 && round % COMPILES_PER_ROUNDS == 0)
        rc = compare_compiles(bench);
    return rc;
}

static double middle(const struct bench *bench, enum series series) { return bench->times[series][bench->counts[series] / 2]; }

static void print(const struct bench *bench) {
    for (int i = 0; i < SERIES; i++)
        qsort(bench->times[i], bench->counts[i], sizeof(double), bench_by_value);
    double start_ms = middle(bench, TRUE_WHOLE) - middle(bench, TRUE_BARE);
    double ratio = middle(bench, COMPILE_WHOLE) / middle(bench, COMPILE_BARE);
    printf("{\"start_ms\": %.2f, \"compile_ratio\": %.3f, \"compile_ratio_of_minima\": %.3f", start_ms, ratio,
           bench->times[COMPILE_WHOLE][0] / bench->times[COMPILE_BARE][0]);
    for (int i = 0; i < SERIES; i++)
        printf(", \"%s\": {\"median_ms\": %.2f, \"min_ms\": %.2f, \"count\": %zu}", names[i], middle(bench, (enum series)i),
               bench->times[i][0], bench->counts[i]);
    puts("}");
}

static int prepare(struct bench *bench, const char *sysroot) {
    strcpy(bench->place, "/tmp/kiln-bench-start-XXXXXX");
    if (!mkdtemp(bench->place) || chmod(bench->place, 0755))
        return fail(bench->place, strerror(errno));
    snprintf(bench->rustc, sizeof bench->rustc, "%s/bin/rustc", sysroot);
    bench->usr = open("/usr", O_PATH | O_CLOEXEC);
    bench->sysroot = open(sysroot, O_PATH | O_CLOEXEC);
    bench->sources = open(bench->place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(1u << 20);
    for (int i = 0; i < FUNCTIONS; i++)
        kiln_buf_addf(&text, "pub fn f%d(words: &[String]) -> usize {\n    let mut all: Vec<_> = words.iter().filter(|w| w.len() > %d).collect();\n"
                             "    all.sort();\n    all.dedup();\n    all.iter().map(|w| w.len()).sum()\n}\n", i, i);
    if (bench->usr < 0 || bench->sysroot < 0 || bench->sources < 0 ||
        kiln_fs_write_file(bench->sources, "lib.rs", text.data, text.len, 0644, NULL))
        return fail(sysroot, strerror(errno));
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fputs("usage: kiln-bench-start KILN_RUN SYSROOT [ROUNDS]\n", stderr);
        return 2;
    }
    struct bench bench = {.run = argv[1]};
    size_t rounds = argc > 3 ? strtoul(argv[3], NULL, 10) : ROUNDS;
    int rc = prepare(&bench, argv[2]);
    for (int i = 0; i < SERIES; i++)
        bench.times[i] = calloc(rounds + 1, sizeof(double));
    for (size_t round = 0; rc == 0 && round < rounds; round++)
        rc = run_round(&bench, round);
    if (rc == 0)
        print(&bench);
    kiln_fs_remove_tree(AT_FDCWD, bench.place, NULL);
    for (int i = 0; i < SERIES; i++)
        free(bench.times[i]);
    return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}
