// Attacks on the sandbox, each three times: as the job itself, as a proc macro inside a real rustc that is watched by the observer,
// and with the one wall taken away that keeps it out, where it must win: else the case shows nothing.
#include "tests/attack/macro_rig.h"

#include <arpa/inet.h>
#include <linux/keyctl.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#define FILTER "--seccomp"
#define NO_NAMESPACE_LOCK ",--disable-userns,--assert-userns-disabled"
#define ATTACKS_OF_A_CRATE 10

// What the attacks are aimed at: made by set_targets, '@/' stands for the sandbox's root, words in capitals for what it made.
struct attack {
    const char *name, *argument;
    const char *refused; // what it prints behind its walls; "A|B": by what the host has
    const char *without; // the walls that keep it out; NULL: there are too many, or it is the whole sandbox
    const char *wins;    // what it prints then; NULL: "won"
};

static const struct attack attacks[] = {
    {"plant", "/planted", "EROFS", NULL, NULL},
    {"plant", "/usr/lib/planted", "EROFS", NULL, NULL},
    {"plant", "/meeting/planted", "EROFS", "read-only", NULL}, // a directory where the host lets anybody write
    {"overwrite", "/meeting/open", "EROFS", "read-only", NULL},
    {"overwrite", "/usr/bin/env", "EACCES", NULL, NULL},
    {"overwrite", "/dev/urandom", "EACCES", NULL, NULL},
    {"overwrite", MACRO, "EACCES", NULL, NULL},
    {"run-copy", "/tmp/copy", "EACCES", "executable", NULL},
    {"overwrite", "/proc/sys/kernel/core_pattern", "EACCES", NULL, NULL},
    {"overwrite", "/proc/sysrq-trigger", "EACCES|ENOENT", NULL, NULL},
    {"peek", "/etc/hostname", "ENOENT", NULL, NULL},
    {"peek", "/proc/1/root/etc/hostname", "ENOENT", NULL, NULL},
    {"peek", "/proc/kcore", "EACCES|ENOENT", NULL, NULL},
    {"peek", "/dev/mem", "ENOENT", NULL, NULL},
    {"peek", "/dev/kmsg", "ENOENT", NULL, NULL},
    {"peek", "/proc/1/environ", "empty", "empty-environment", NULL},
    {"descriptors", "", "none", "closed-descriptors", NULL},
    {"cut-output", "", "EINVAL", NULL, NULL},
    {"others", "", "ESRCH", NULL, NULL},
    {"new-user", "", "EPERM", FILTER NO_NAMESPACE_LOCK, NULL},
    {"clone-user", "", "ENOSYS", FILTER NO_NAMESPACE_LOCK, NULL},
    {"clone3-user", "", "ENOSYS", FILTER NO_NAMESPACE_LOCK, NULL},
    {"new-mounts", "/tmp", "EPERM", FILTER NO_NAMESPACE_LOCK, NULL},
    {"open-mount", "", "EPERM", FILTER, NULL},
    {"enter", "", "EPERM", FILTER, "EINVAL"}, // the call is answered: this is the very namespace
    {"change-root", "/tmp", "EPERM", NULL, NULL},
    {"pipe", "/tmp/pipe", "EPERM", FILTER, NULL},
    {"whiteout", "/tmp/whiteout", "EPERM", FILTER, NULL},
    {"device", "/tmp/device", "EPERM", NULL, NULL},
    {"leave-whiteout", "/tmp/moved", "ENOSYS", FILTER, NULL},
    {"attribute", "/tmp/attribute", "EPERM", FILTER, NULL},
    {"set-id", "/tmp/set-id", "ENOSYS", FILTER, NULL},
    {"set-id-newly", "/tmp/set-id", "ENOSYS", FILTER, NULL},
    {"set-id-at-birth", "/tmp/born", "ENOSYS", FILTER, NULL},
    {"become-root", "", "EPERM", FILTER, "EINVAL"}, // there is no uid 0 either
#ifdef __x86_64__
    {"foreign", "", "SIGSYS", FILTER, NULL},
    {"x32", "", "SIGSYS", FILTER, "ENOSYS"}, // most kernels have none
#endif
    {"connect", "PORT", "EACCES", FILTER ",--unshare-net", NULL},
    {"local", "ABSTRACT", "EACCES", FILTER ",--unshare-net", NULL},
    {"local", "/meeting/socket", "EACCES", FILTER, NULL},
    {"reconnect", "/meeting/datagrams", "ENOSYS", FILTER, NULL},
    {"family", "16", "EACCES", FILTER, NULL}, // AF_NETLINK
    {"family", "40", "EACCES", FILTER, "ESOCKTNOSUPPORT"}, // AF_VSOCK: the family answers
    {"rings", "", "ENOSYS", FILTER, NULL},
    {"faults", "", "EPERM", FILTER, NULL},
    {"events", "", "EPERM", FILTER, NULL},
    {"program", "", "EPERM", NULL, NULL},
    {"key", "", "EPERM", FILTER, NULL},
    {"trace", "", "EPERM", FILTER, NULL},
    {"read-init", "", "EPERM", FILTER, NULL},
    {"type-ahead", "", "ENOSYS", FILTER, "ENOTTY"}, // the call is answered: it is no terminal
    {"handle", "/usr", "ENOSYS", FILTER, NULL},
    {"from-memory", "", "ENOSYS", FILTER, NULL},
    {"segment", "SEGMENT", "ENOSYS", FILTER, NULL},
    {"predictable", "", "ENOSYS", FILTER, NULL},
    {"filters", "", "ENOSYS", FILTER, NULL},
    {"kernel-log", "", "EPERM", NULL, NULL},
    {"swap", "/dev/zero", "EPERM", NULL, NULL},
    {"clock", "", "EPERM", NULL, NULL},
    {"entropy", "", "ENOSYS", FILTER, NULL},
};

static char port[16], segment_key[16], abstract_name[32]; // the latter two of this run alone: others may run beside it

static char *expand(const char *argument) {
    char *text = NULL;
    static const char *const targets[][2] = {{"PORT", port}, {"SEGMENT", segment_key}, {"ABSTRACT", abstract_name}};
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
        if (!strcmp(argument, targets[i][0]))
            return strdup(targets[i][1]);
    if (argument[0] == '@' && argument[1] == '/') {
        assert_true(asprintf(&text, "%s%s", kiln_sandbox_root(), argument + 1) > 0);
        return text;
    }
    return strdup(argument);
}

static void init(struct rig *rig, const char *without) {
    macro_rig_init(rig);
    char meeting[64];
    snprintf(meeting, sizeof meeting, "%s/meeting", home);
    rig_bind(rig, meeting, "/meeting");
    rig->without = without;
}

// In a container some answers are other ones: Docker's files are there, and empty; kiln-init cannot be looked into.
static const char *refusal_of(const struct attack *attack) {
    static const char *const contained[][2] = {
        {"/etc/hostname", "empty"}, {"/proc/1/root/etc/hostname", "EACCES"}, {"/proc/1/environ", "EACCES"}};
    for (size_t i = 0; !RIG_LEAKS && i < sizeof contained / sizeof *contained; i++)
        if (!strcmp(attack->argument, contained[i][0]))
            return contained[i][1];
    return attack->refused;
}

static unsigned surprises; // of the running test

static bool is_one_of(const char *said, size_t len, const char *expected) {
    for (const char *at = expected; *at; at += strcspn(at, "|"), at += *at == '|')
        if (strcspn(at, "|") == len && !strncmp(at, said, len))
            return true;
    return false;
}

// Prints what is not as expected; a test fails at its end, so that all of it is seen.
static void expect(const struct attack *attack, const char *how, const char *said, const char *expected) {
    size_t len = strcspn(said, "\n");
    if (!is_one_of(said, len, expected))
        surprises += (unsigned)fprintf(stderr, "%s %s, %s: \"%.*s\", expected \"%s\"\n", attack->name, attack->argument, how, (int)len,
                                       said, expected) > 0;
}

static void attack_alone(const struct attack *attack, const char *without, const char *expected) {
    rig_auto struct rig rig;
    kiln_autofree char *argument = expand(attack->argument);
    init(&rig, without);
    rig_command(&rig, "/attacker", attack->name, argument, NULL);
    rig_go(&rig);
    rig_assert_end(&rig, KILN_END_EXIT, 0);
    expect(attack, without ? "with a wall taken away" : "alone", kiln_buf_text(&rig.out), expected);
}

static void are_refused(void **state) {
    (void)state;
    if (!RIG_LEAKS && !getenv("KILN_FULL"))
        skip(); // inside rustc is as good, and ten of them take one container
    for (size_t i = 0; i < sizeof attacks / sizeof *attacks; i++)
        attack_alone(&attacks[i], NULL, refusal_of(&attacks[i]));
    assert_int_equal(surprises, 0);
}

// Some calls are then refused by kiln-run and not by the kernel.
static void are_refused_when_watched(void **state) {
    (void)state;
    if (!RIG_LEAKS)
        skip(); // a container for each takes too long; test_run_watch.c tries refused calls there too
    for (size_t i = 0; i < sizeof attacks / sizeof *attacks; i++) {
        rig_auto struct rig rig;
        kiln_autofree char *argument = expand(attacks[i].argument);
        kiln_autofd int watch = memfd_create("watch", MFD_CLOEXEC);
        init(&rig, NULL);
        rig.spec.watch_fd = (uint32_t)watch;
        rig_command(&rig, "/attacker", attacks[i].name, argument, NULL);
        rig_go(&rig);
        rig_assert_end(&rig, KILN_END_EXIT, 0);
        expect(&attacks[i], "watched", kiln_buf_text(&rig.out), attacks[i].refused);
    }
    assert_int_equal(surprises, 0);
}

static void win_without_their_wall(void **state) {
    (void)state;
    if (!RIG_LEAKS)
        skip();
    for (size_t i = 0; i < sizeof attacks / sizeof *attacks; i++)
        if (attacks[i].without)
            attack_alone(&attacks[i], attacks[i].without, attacks[i].wins ? attacks[i].wins : "won");
    assert_int_equal(surprises, 0);
}

// The files are there to be read, but not in a job's root.
static void read_host_files_where_the_root_has_them(void **state) {
    (void)state;
    if (!RIG_LEAKS)
        skip();
    static const struct attack peeks[] = {{.name = "peek", .argument = "/etc/hostname"}, {.name = "peek", .argument = "/proc/1/root/etc/hostname"}};
    for (size_t i = 0; i < 2; i++) {
        rig_auto struct rig rig;
        init(&rig, NULL);
        rig_bind(&rig, "/etc", "/etc");
        rig_command(&rig, "/attacker", peeks[i].name, peeks[i].argument, NULL);
        rig_go(&rig);
        expect(&peeks[i], "in a root with /etc", kiln_buf_text(&rig.out), "won");
    }
    assert_int_equal(surprises, 0);
}

static void attack_inside_rustc(const struct attack *first, size_t count) {
    rig_auto struct rig rig;
    kiln_autobuf struct kiln_buf source = KILN_BUF_INIT(65536);
    init(&rig, NULL);
    for (size_t i = 0; i < count; i++) {
        kiln_autofree char *argument = expand(first[i].argument);
        kiln_buf_addf(&source, "attack_macro::attack!(\"%s %s\");\n", first[i].name, argument);
    }
    macro_compile(&rig, kiln_buf_text(&source));
    rig_assert_end(&rig, KILN_END_EXIT, 0);
    assert_int_equal(faccessat(rig.session.out_dir, "libmade.rmeta", F_OK, 0), 0);
    const char *said = kiln_buf_text(&rig.out); // a line for each
    for (size_t i = 0; i < count; i++) {
        expect(&first[i], "inside rustc", said, refusal_of(&first[i]));
        said += strcspn(said, "\n");
        said += *said == '\n';
    }
}

static void are_refused_inside_rustc(void **state) {
    (void)state;
    size_t all = sizeof attacks / sizeof *attacks;
    for (size_t first = 0; first < all; first += ATTACKS_OF_A_CRATE)
        attack_inside_rustc(&attacks[first], all - first < ATTACKS_OF_A_CRATE ? all - first : ATTACKS_OF_A_CRATE);
    assert_int_equal(surprises, 0);
}

// What attacks left on the host when their wall was away.
static void clean_up(void) {
    char planted[80];
    snprintf(planted, sizeof planted, "%s/meeting/planted", home);
    unlink(planted);
    int segment = shmget((key_t)strtol(segment_key, NULL, 0), 0, 0);
    if (segment >= 0)
        shmctl(segment, IPC_RMID, NULL);
}

static void segment_outlives_without_its_namespace(void **state) {
    (void)state;
    if (!RIG_LEAKS)
        skip();
    const struct attack segment = {.name = "segment", .argument = "SEGMENT"};
    attack_alone(&segment, FILTER, "won");
    attack_alone(&segment, FILTER, "won"); // gone with its job
    attack_alone(&segment, FILTER ",--unshare-ipc", "won");
    attack_alone(&segment, FILTER ",--unshare-ipc", "EEXIST");
    clean_up();
    assert_int_equal(surprises, 0);
}

static void finds_no_key_of_the_starter(void **state) {
    (void)state;
    const struct attack search = {.name = "find-key", .argument = "kiln-attack-key"};
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0)
        skip(); // a kernel, or a container, without keys
    assert_true(syscall(SYS_add_key, "user", search.argument, "secret", 6, KEY_SPEC_SESSION_KEYRING) > 0);
    attack_alone(&search, NULL, "EPERM");
    if (RIG_LEAKS) {
        attack_alone(&search, FILTER, "ENOKEY");
        attack_alone(&search, FILTER ",forget", "won");
    }
    assert_int_equal(surprises, 0);
}

static int forget_surprises(void **state) {
    (void)state;
    surprises = 0;
    return 0;
}

static int tests(void) {
    const struct CMUnitTest all[] = {
        cmocka_unit_test_setup(are_refused, forget_surprises),
        cmocka_unit_test_setup(are_refused_when_watched, forget_surprises),
        cmocka_unit_test_setup(win_without_their_wall, forget_surprises),
        cmocka_unit_test_setup(read_host_files_where_the_root_has_them, forget_surprises),
        cmocka_unit_test_setup(segment_outlives_without_its_namespace, forget_surprises),
        cmocka_unit_test_setup(finds_no_key_of_the_starter, forget_surprises),
        cmocka_unit_test_setup(are_refused_inside_rustc, forget_surprises),
    };
    int failed = cmocka_run_group_tests_name("attacks of macros", all, NULL, NULL);
    clean_up();
    return failed;
}

static int listen_at(int family, int type, const void *address, socklen_t len) {
    int fd = socket(family, type | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, address, len) || (type == SOCK_STREAM && listen(fd, 100)))
        return -1;
    return fd;
}

static int listen_at_path(const char *name, int type) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/meeting/%s", home, name);
    int fd = listen_at(AF_UNIX, type, &address, sizeof address);
    return fd < 0 || chmod(address.sun_path, 0777) ? -1 : fd;
}

// Listeners of the host that a job must not get at; they live as long as this process.
static bool set_targets(void) {
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof local;
    struct sockaddr_un abstract = {.sun_family = AF_UNIX};
    snprintf(segment_key, sizeof segment_key, "%#x", 0x6b000000u | (unsigned)getpid());
    int abstract_len = snprintf(abstract_name, sizeof abstract_name, "@kiln-attack-%d", (int)getpid());
    memcpy(abstract.sun_path + 1, abstract_name + 1, (size_t)abstract_len - 1);
    char meeting[64];
    snprintf(meeting, sizeof meeting, "%s/meeting", home);
    if (mkdir(meeting, 0755) || chmod(meeting, 0777))
        return false;
    int port_fd = listen_at(AF_INET, SOCK_STREAM, &local, len);
    if (port_fd < 0 || getsockname(port_fd, (struct sockaddr *)&local, &len))
        return false;
    snprintf(port, sizeof port, "%u", ntohs(local.sin_port));
    char file[80];
    snprintf(file, sizeof file, "%s/open", meeting);
    kiln_autofd int open_file = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (open_file < 0 || fchmod(open_file, 0666))
        return false;
    return listen_at(AF_UNIX, SOCK_STREAM, &abstract, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)abstract_len)) >= 0 &&
           listen_at_path("socket", SOCK_STREAM) >= 0 && listen_at_path("datagrams", SOCK_DGRAM) >= 0;
}

int main(void) { return macro_rig_main(set_targets, tests); }
