// Small hand-made objects: what counts as a system call, which bytes are none, and what is not understood. Objects that
// compilers make are in tests/integration/test_preload_rustc.c.
#include <elf.h>
#include <sys/mman.h>

#include "lib/base/cleanup.h"
#include "lib/macro/elf_object.h"
#include "lib/macro/macro_object.h"
#include "tests/unit/scratch.h"

#define CODE_AT 0x1000u
#define FRAMES_AT 0x800u
#define DYNAMIC_AT 0x400u
#define FILE_BYTES 0x2000u

struct frame {
    uint32_t start, len; // in the code
};

struct recipe {
    const char *code;
    size_t code_len;
    struct frame frames[4];
    size_t frames_count;
    const char *import; // a symbol that is not defined
    const char *needed; // a library
    bool sysv_hash;
    bool defined; // the symbol is the object's own
};

struct image {
    unsigned char bytes[FILE_BYTES];
};

static void put(struct image *image, size_t at, const void *data, size_t len) {
    assert_true(at + len <= sizeof image->bytes);
    memcpy(image->bytes + at, data, len);
}

// Strings at 0x300: "" then the import at 1 and the library at 64.
static void put_dynamic(struct image *image, const struct recipe *recipe) {
    const Elf64_Dyn entries[] = {
        {DT_SYMTAB, {0x200}}, {DT_STRTAB, {0x300}}, {DT_STRSZ, {128}},
        {recipe->sysv_hash ? DT_HASH : DT_GNU_HASH, {0x280}}, {recipe->needed ? DT_NEEDED : DT_DEBUG, {64}},
        {DT_NULL, {0}},
    };
    const Elf64_Sym symbol = {.st_name = 1, .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_OBJECT),
                              .st_shndx = recipe->defined ? 7 : SHN_UNDEF};
    const uint32_t hash[] = {1, recipe->import ? 2 : 1};
    put(image, DYNAMIC_AT, entries, sizeof entries);
    put(image, 0x280, hash, sizeof hash);
    if (recipe->import) {
        put(image, 0x200 + sizeof symbol, &symbol, sizeof symbol);
        put(image, 0x301, recipe->import, strlen(recipe->import) + 1);
    }
    if (recipe->needed)
        put(image, 0x340, recipe->needed, strlen(recipe->needed) + 1);
}

static void put_frames(struct image *image, const struct recipe *recipe) {
    const unsigned char head[] = {1, 0x1b, 0x03, 0x3b, 0, 0, 0, 0, (unsigned char)recipe->frames_count, 0, 0, 0};
    put(image, FRAMES_AT, head, sizeof head);
    for (size_t i = 0; i < recipe->frames_count; i++) {
        uint32_t at = 0x100 + (uint32_t)i * 0x20; // from the table's start
        int32_t start = (int32_t)(CODE_AT + recipe->frames[i].start - FRAMES_AT);
        const int32_t row[] = {start, (int32_t)at};
        const uint32_t entry[] = {0x1c, 0, CODE_AT + recipe->frames[i].start - (FRAMES_AT + at + 8),
                                  recipe->frames[i].len};
        put(image, FRAMES_AT + sizeof head + i * sizeof row, row, sizeof row);
        put(image, FRAMES_AT + at, entry, sizeof entry);
    }
}

static void bake(const struct recipe *recipe, struct image *image) {
    memset(image, 0, sizeof *image);
    Elf64_Ehdr header = {.e_type = ET_DYN,
                         .e_machine = EM_X86_64,
                         .e_phoff = sizeof header,
                         .e_phentsize = sizeof(Elf64_Phdr),
                         .e_phnum = 4};
    memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    const Elf64_Phdr segments[] = {
        {.p_type = PT_LOAD, .p_flags = PF_R, .p_filesz = CODE_AT, .p_memsz = CODE_AT},
        {.p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_offset = CODE_AT, .p_vaddr = CODE_AT,
         .p_filesz = recipe->code_len, .p_memsz = recipe->code_len},
        {.p_type = PT_DYNAMIC, .p_offset = DYNAMIC_AT, .p_vaddr = DYNAMIC_AT, .p_filesz = 96, .p_memsz = 96},
        {.p_type = recipe->frames_count ? PT_GNU_EH_FRAME : PT_NULL, .p_offset = FRAMES_AT, .p_vaddr = FRAMES_AT,
         .p_filesz = 0x100, .p_memsz = 0x100},
    };
    put(image, 0, &header, sizeof header);
    put(image, sizeof header, segments, sizeof segments);
    put(image, CODE_AT, recipe->code, recipe->code_len);
    put_dynamic(image, recipe);
    put_frames(image, recipe);
}

static enum kiln_macro_verdict check(const void *bytes, size_t len) {
    kiln_autofd int fd = memfd_create("object", MFD_CLOEXEC);
    struct kiln_err err = {0};
    assert_ok(kiln_fs_write_all(fd, bytes, len, &err));
    enum kiln_macro_verdict verdict;
    assert_ok(kiln_macro_object_check(fd, &verdict, &err));
    return verdict;
}

#define CODE(literal) literal, sizeof(literal) - 1

#define RET "\xc3"
#define MOV_EAX "\xb8" // and 4 bytes
#define SYSCALL "\x0f\x05"

static const struct {
    const char *what;
    struct recipe recipe;
    enum kiln_macro_verdict want;
} table[] = {
    {"plain code", {CODE("\x31\xc0" RET), {{0, 3}}, 1, NULL, NULL, false, false}, KILN_MACRO_SEEN},
    {"a syscall", {CODE("\x31\xc0" SYSCALL RET), {{0, 5}}, 1, NULL, NULL, false, false}, KILN_MACRO_SYSCALL},
    {"sysenter", {CODE("\x0f\x34" RET), {{0, 3}}, 1, NULL, NULL, false, false}, KILN_MACRO_SYSCALL},
    {"int 0x80", {CODE("\xcd\x80" RET), {{0, 3}}, 1, NULL, NULL, false, false}, KILN_MACRO_SYSCALL},
    {"another interrupt", {CODE("\xcd\x03" RET), {{0, 3}}, 1, NULL, NULL, false, false}, KILN_MACRO_SEEN},
    {"with a prefix", {CODE("\x48" SYSCALL RET), {{0, 4}}, 1, NULL, NULL, false, false}, KILN_MACRO_SYSCALL},
    {"as its last bytes", {CODE(RET SYSCALL), {{0, 3}}, 1, NULL, NULL, false, false}, KILN_MACRO_SYSCALL},
    {"in a constant", {CODE(MOV_EAX SYSCALL "\xcd\x80" RET), {{0, 6}}, 1, NULL, NULL, false, false}, KILN_MACRO_SEEN},
    {"across two instructions",
     {CODE("\xb0\x0f\x05\x01\x02\x03\x04" RET), {{0, 8}}, 1, NULL, NULL, false, false}, KILN_MACRO_SEEN},
    {"second function",
     {CODE(RET "\x90\x90" SYSCALL RET), {{0, 1}, {3, 3}}, 2, NULL, NULL, false, false}, KILN_MACRO_SYSCALL},
    // Disassembled from the first function's start, the bytes would be a constant.
    {"a function's start matters",
     {CODE(MOV_EAX SYSCALL RET "\x90" RET), {{0, 1}, {1, 4}}, 2, NULL, NULL, false, false},
     KILN_MACRO_SYSCALL},
    {"between functions",
     {CODE(RET "\x90" SYSCALL "\x90" RET), {{0, 1}, {5, 1}}, 2, NULL, NULL, false, false}, KILN_MACRO_SYSCALL},
    // The rest of a constant before, the start of one behind: the bounds between which to look matter.
    {"between functions, not from before", {CODE("\xb8" SYSCALL "\x90\x90" RET), {{0, 1}}, 1, NULL, NULL, false, false},
     KILN_MACRO_SYSCALL},
    {"not up to the next function",
     {CODE("\xb8" SYSCALL "\x90\x90" RET), {{0, 1}, {5, 1}}, 2, NULL, NULL, false, false},
     KILN_MACRO_SYSCALL},
    {"not into the next function",
     {CODE(RET MOV_EAX SYSCALL "\0" SYSCALL "\x90\x90" RET), {{0, 1}, {5, 5}}, 2, NULL, NULL, false, false},
     KILN_MACRO_SYSCALL},
    {"an interrupt beside a constant",
     {CODE(MOV_EAX "\xcd\x80\0\0" "\xcd\x03" RET), {{0, 8}}, 1, NULL, NULL, false, false},
     KILN_MACRO_SEEN},
    {"without frames", {CODE("\x31\xc0" SYSCALL RET), {{0, 0}}, 0, NULL, NULL, false, false}, KILN_MACRO_SYSCALL},
    {"constant without frames",
     {CODE(MOV_EAX SYSCALL "\0\0" RET), {{0, 0}}, 0, NULL, NULL, false, false}, KILN_MACRO_SEEN},
    // 06 is no instruction in 64-bit code.
    {"behind what is no code", {CODE("\x06" SYSCALL RET), {{0, 4}}, 1, NULL, NULL, false, false}, KILN_MACRO_UNKNOWN},
    {"no code, but none of the bytes", {CODE("\x06\x06" RET), {{0, 3}}, 1, NULL, NULL, false, false}, KILN_MACRO_SEEN},
    {"environ", {CODE(RET), {{0, 1}}, 1, "environ", NULL, false, false}, KILN_MACRO_ENVIRON},
    {"__environ", {CODE(RET), {{0, 1}}, 1, "__environ", NULL, true, false}, KILN_MACRO_ENVIRON},
    {"_environ and a syscall", {CODE(SYSCALL RET), {{0, 3}}, 1, "_environ", NULL, false, false}, KILN_MACRO_ENVIRON},
    {"environ of its own", {CODE(RET), {{0, 1}}, 1, "environ", NULL, true, true}, KILN_MACRO_SEEN},
    {"another import", {CODE(RET), {{0, 1}}, 1, "environment", NULL, true, false}, KILN_MACRO_SEEN},
    {"libc", {CODE(RET), {{0, 1}}, 1, "getenv", "libc.so.6", false, false}, KILN_MACRO_SEEN},
    {"a shared std",
     {CODE(RET), {{0, 1}}, 1, "getenv", "libstd-0123456789abcdef.so", false, false}, KILN_MACRO_UNKNOWN},
    {"another library", {CODE(RET), {{0, 1}}, 1, NULL, "libssl.so.3", false, false}, KILN_MACRO_UNKNOWN},
};

static void test_verdicts(void **state) {
    (void)state;
    static struct image image;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        bake(&table[i].recipe, &image);
        enum kiln_macro_verdict verdict = check(image.bytes, sizeof image.bytes);
        if (verdict != table[i].want)
            fail_msg("%s: %s", table[i].what, kiln_macro_verdict_name(verdict));
    }
}

static void test_not_understood(void **state) {
    (void)state;
    static struct image image;
    static const struct {
        const char *what;
        size_t at;
        const char *bytes;
        size_t len;
    } spoiled[] = {
        {"no ELF", 0, "\0", 1},
        {"32 bits", EI_CLASS, "\1", 1},
        {"big-endian", EI_DATA, "\2", 1},
        {"another machine", offsetof(Elf64_Ehdr, e_machine), "\xb7\0", 2},
        {"an executable", offsetof(Elf64_Ehdr, e_type), "\2", 1},
        {"no segments", offsetof(Elf64_Ehdr, e_phnum), "\0", 1},
        {"segments of another size", offsetof(Elf64_Ehdr, e_phentsize), "\0", 1},
        {"segments outside the file", offsetof(Elf64_Ehdr, e_phoff) + 3, "\1", 1},
        {"code outside the file", sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr) + offsetof(Elf64_Phdr, p_offset) + 5,
         "\1", 1},
        {"no dynamic section", sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr), "\0", 1},
        {"strings outside the file", DYNAMIC_AT + 16 + 8 + 2, "\1", 1},
        {"no hash table", DYNAMIC_AT + 48, "\0\0\0\0\0\0\0\0", 8},
        {"more symbols than can be", 0x280 + 7, "\1", 1},
        {"a name outside the strings", 0x200 + sizeof(Elf64_Sym) + 2, "\1", 1},
    };
    const struct recipe recipe = {CODE(RET), {{0, 1}}, 1, "getenv", "libc.so.6", false, false};
    bake(&recipe, &image);
    assert_int_equal(check(image.bytes, sizeof image.bytes), KILN_MACRO_SEEN);
    for (size_t i = 0; i < sizeof spoiled / sizeof *spoiled; i++) {
        bake(&recipe, &image);
        put(&image, spoiled[i].at, spoiled[i].bytes, spoiled[i].len);
        enum kiln_macro_verdict verdict = check(image.bytes, sizeof image.bytes);
        if (verdict != KILN_MACRO_UNKNOWN)
            fail_msg("%s: %s", spoiled[i].what, kiln_macro_verdict_name(verdict));
    }
}

// A cut file is never taken for one that was understood; no byte of it may lead outside the bounds.
static void test_cut_and_flipped(void **state) {
    (void)state;
    static struct image image;
    const struct recipe recipe = {CODE(MOV_EAX SYSCALL "\0\0" RET SYSCALL RET), {{0, 6}, {6, 3}}, 2, "getenv",
                                  "libc.so.6", false, false};
    bake(&recipe, &image);
    assert_int_equal(check(image.bytes, sizeof image.bytes), KILN_MACRO_SYSCALL);
    for (size_t len = 0; len < CODE_AT + recipe.code_len; len += 7)
        assert_int_equal(check(image.bytes, len), KILN_MACRO_UNKNOWN);
    for (size_t at = 0; at < CODE_AT + recipe.code_len; at++) {
        if (!image.bytes[at])
            continue;
        for (unsigned bit = 0; bit < 8; bit++) {
            image.bytes[at] ^= (unsigned char)(1u << bit);
            check(image.bytes, sizeof image.bytes);
            image.bytes[at] ^= (unsigned char)(1u << bit);
        }
    }
}

// With a section table only executable sections are code: constants may share a segment with it.
static void test_sections(void **state) {
    (void)state;
    static struct image image;
    const struct recipe recipe = {CODE(RET "\x06" SYSCALL), {{0, 1}}, 1, NULL, NULL, false, false};
    bake(&recipe, &image);
    assert_int_equal(check(image.bytes, sizeof image.bytes), KILN_MACRO_UNKNOWN);
    const Elf64_Shdr sections[] = {
        {.sh_type = SHT_NULL},
        {.sh_type = SHT_PROGBITS, .sh_flags = SHF_ALLOC | SHF_EXECINSTR, .sh_addr = CODE_AT, .sh_size = 1},
        {.sh_type = SHT_PROGBITS, .sh_flags = SHF_ALLOC, .sh_addr = CODE_AT + 1, .sh_size = 3},
    };
    Elf64_Ehdr header;
    memcpy(&header, image.bytes, sizeof header);
    header.e_shoff = 0x1800;
    header.e_shnum = 3;
    header.e_shentsize = sizeof *sections;
    put(&image, 0, &header, sizeof header);
    put(&image, 0x1800, sections, sizeof sections);
    assert_int_equal(check(image.bytes, sizeof image.bytes), KILN_MACRO_SEEN);
}

static void test_not_a_file(void **state) {
    (void)state;
    enum kiln_macro_verdict verdict = KILN_MACRO_SEEN;
    kiln_autofd int directory = open("/", O_RDONLY | O_CLOEXEC);
    assert_int_equal(kiln_macro_object_check(directory, &verdict, NULL), 0);
    assert_int_equal(verdict, KILN_MACRO_UNKNOWN);
    assert_int_equal(kiln_macro_object_check(-1, &verdict, NULL), KILN_E_IO);
}

static void test_names(void **state) {
    (void)state;
    assert_string_equal(kiln_macro_verdict_name(KILN_MACRO_SEEN), "seen");
    assert_string_equal(kiln_macro_verdict_name(KILN_MACRO_UNKNOWN), "unknown");
    assert_string_equal(kiln_macro_verdict_name((enum kiln_macro_verdict)9), "unknown");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts), cmocka_unit_test(test_not_understood), cmocka_unit_test(test_cut_and_flipped),
        cmocka_unit_test(test_sections), cmocka_unit_test(test_not_a_file),     cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
