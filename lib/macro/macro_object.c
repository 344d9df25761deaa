#include "lib/macro/macro_object.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/macro/elf_object.h"
#include "lib/macro/macro_code.h"

#define DYNAMIC_MAX (64u << 10)
#define STRINGS_MAX (16u << 20)
#define IMPORTS_MAX (1u << 20)

// libc's data that holds the variables, by all its names.
static const char *const environ_names[] = {"environ", "__environ", "_environ"};

// What a macro may be linked to. Code of any other library would call libc from an object that the observer takes for
// the toolchain's (a shared std among them), or that nobody has looked into.
static const char *const libc_family[] = {
    "libc.so.6",    "libm.so.6",  "libgcc_s.so.1", "ld-linux-x86-64.so.2",
    "libpthread.so.0", "libdl.so.2", "librt.so.1",    "libutil.so.1",
};

struct dynamic {
    uint64_t symbols, strings, strings_len, hash, gnu_hash;
    uint64_t needed[32]; // offsets into the strings
    size_t needed_count;
    char *text; // the strings, NUL-terminated
};

static bool among(const char *text, const char *const *list, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!strcmp(text, list[i]))
            return true;
    return false;
}

static bool take_entry(struct dynamic *dynamic, const Elf64_Dyn *entry) {
    switch (entry->d_tag) {
    case DT_SYMTAB:
        dynamic->symbols = entry->d_un.d_ptr;
        break;
    case DT_STRTAB:
        dynamic->strings = entry->d_un.d_ptr;
        break;
    case DT_STRSZ:
        dynamic->strings_len = entry->d_un.d_val;
        break;
    case DT_HASH:
        dynamic->hash = entry->d_un.d_ptr;
        break;
    case DT_GNU_HASH:
        dynamic->gnu_hash = entry->d_un.d_ptr;
        break;
    case DT_NEEDED:
        if (dynamic->needed_count == sizeof dynamic->needed / sizeof *dynamic->needed)
            return false;
        dynamic->needed[dynamic->needed_count++] = entry->d_un.d_val;
        break;
    default:
        break;
    }
    return true;
}

static bool read_dynamic(const struct kiln_elf_object *object, struct dynamic *dynamic) {
    const Elf64_Phdr *segment = kiln_elf_object_segment(object, PT_DYNAMIC);
    if (!segment || segment->p_filesz > DYNAMIC_MAX)
        return false;
    kiln_autofree Elf64_Dyn *entries = malloc(segment->p_filesz + 1);
    if (!entries || !kiln_elf_object_read(object, segment->p_vaddr, entries, segment->p_filesz))
        return false;
    size_t count = segment->p_filesz / sizeof *entries;
    for (size_t i = 0; i < count && entries[i].d_tag != DT_NULL; i++)
        if (!take_entry(dynamic, &entries[i]))
            return false;
    if (dynamic->strings_len == 0 || dynamic->strings_len > STRINGS_MAX)
        return false;
    dynamic->text = malloc(dynamic->strings_len + 1);
    if (!dynamic->text || !kiln_elf_object_read(object, dynamic->strings, dynamic->text, dynamic->strings_len))
        return false;
    dynamic->text[dynamic->strings_len] = 0;
    return true;
}

// How many entries of the symbol table to look at: all of them by the old hash table, by the new one those before the
// first that it holds, among which are all imports.
static bool count_symbols(const struct kiln_elf_object *object, const struct dynamic *dynamic, size_t *count) {
    uint32_t words[2];
    uint64_t table = dynamic->hash ? dynamic->hash : dynamic->gnu_hash;
    if (!table || !kiln_elf_object_read(object, table, words, sizeof words) || words[1] > IMPORTS_MAX)
        return false;
    *count = words[1];
    return true;
}

static const char *string_at(const struct dynamic *dynamic, uint64_t offset) {
    return offset < dynamic->strings_len ? dynamic->text + offset : NULL;
}

static enum kiln_macro_verdict judge_imports(const struct kiln_elf_object *object, const struct dynamic *dynamic) {
    size_t count;
    if (!count_symbols(object, dynamic, &count))
        return KILN_MACRO_UNKNOWN;
    kiln_autofree Elf64_Sym *symbols = malloc(count * sizeof *symbols + 1);
    if (!symbols || !kiln_elf_object_read(object, dynamic->symbols, symbols, count * sizeof *symbols))
        return KILN_MACRO_UNKNOWN;
    for (size_t i = 0; i < count; i++) {
        const char *name = string_at(dynamic, symbols[i].st_name);
        if (!name)
            return KILN_MACRO_UNKNOWN;
        if (symbols[i].st_shndx == SHN_UNDEF && among(name, environ_names, 3))
            return KILN_MACRO_ENVIRON;
    }
    return KILN_MACRO_SEEN;
}

static enum kiln_macro_verdict judge_libraries(const struct dynamic *dynamic) {
    for (size_t i = 0; i < dynamic->needed_count; i++) {
        const char *name = string_at(dynamic, dynamic->needed[i]);
        if (!name || !among(name, libc_family, sizeof libc_family / sizeof *libc_family))
            return KILN_MACRO_UNKNOWN;
    }
    return KILN_MACRO_SEEN;
}

static enum kiln_macro_verdict judge_links(const struct kiln_elf_object *object) {
    struct dynamic dynamic = {0};
    enum kiln_macro_verdict verdict = KILN_MACRO_UNKNOWN;
    if (read_dynamic(object, &dynamic)) {
        verdict = judge_libraries(&dynamic);
        if (verdict == KILN_MACRO_SEEN)
            verdict = judge_imports(object, &dynamic);
    }
    free(dynamic.text);
    return verdict;
}

int kiln_macro_object_check(int fd, enum kiln_macro_verdict *verdict, struct kiln_err *err) {
    struct kiln_elf_object object;
    int rc = kiln_elf_object_open(fd, &object, err);
    if (rc == KILN_E_UNSUPPORTED) {
        *verdict = KILN_MACRO_UNKNOWN;
        return 0;
    }
    if (rc)
        return rc;
    enum kiln_macro_verdict links = judge_links(&object);
    enum kiln_macro_code code = KILN_CODE_CLEAN;
    if (links == KILN_MACRO_SEEN)
        rc = kiln_macro_code_search(&object, &code, err);
    if (rc)
        return rc;
    if (links != KILN_MACRO_SEEN)
        *verdict = links;
    else
        *verdict = code == KILN_CODE_CLEAN ? KILN_MACRO_SEEN
                   : code == KILN_CODE_CALLS ? KILN_MACRO_SYSCALL
                                             : KILN_MACRO_UNKNOWN;
    return 0;
}

const char *kiln_macro_verdict_name(enum kiln_macro_verdict verdict) {
    static const char *const names[] = {"seen", "syscall", "environ", "unknown"};
    return (size_t)verdict < sizeof names / sizeof *names ? names[verdict] : "unknown";
}
