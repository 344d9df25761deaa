// What kiln-run is made of: the C library and lib/base. It starts hostile code, so there must be nothing in it to steal.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/fs.h"

#define PROGRAM KILN_BINARY_DIR "/consumer/kiln-run"

struct image {
    struct kiln_buf bytes;
    const Elf64_Ehdr *head;
    const Elf64_Shdr *sections;
};

static int open_image(void **state) {
    struct image *image = calloc(1, sizeof *image);
    image->bytes = KILN_BUF_INIT(64u << 20);
    assert_int_equal(kiln_fs_read_file(AT_FDCWD, PROGRAM, &image->bytes, NULL), 0);
    image->head = (const Elf64_Ehdr *)(const void *)image->bytes.data;
    assert_memory_equal(image->head->e_ident, ELFMAG, SELFMAG);
    image->sections = (const Elf64_Shdr *)(const void *)(image->bytes.data + image->head->e_shoff);
    *state = image;
    return 0;
}

static int close_image(void **state) {
    struct image *image = *state;
    kiln_buf_release(&image->bytes);
    free(image);
    return 0;
}

static const Elf64_Shdr *section_of(const struct image *image, uint32_t type) {
    for (unsigned i = 0; i < image->head->e_shnum; i++)
        if (image->sections[i].sh_type == type)
            return &image->sections[i];
    return NULL;
}

static void needs_the_c_library_only(void **state) {
    const struct image *image = *state;
    // The latter ones in builds with sanitizers.
    static const char *const allowed[] = {"libc.so.", "ld-linux", "libasan.so.", "libubsan.so.", "libtsan.so.", "libm.so.",
                                          "libgcc_s.so.", "libpthread.so.", "libdl.so.", "libstdc++.so.", "librt.so."};
    const Elf64_Shdr *dynamic = section_of(image, SHT_DYNAMIC);
    assert_non_null(dynamic);
    const char *names = (const char *)image->bytes.data + image->sections[dynamic->sh_link].sh_offset;
    const Elf64_Dyn *entry = (const Elf64_Dyn *)(const void *)(image->bytes.data + dynamic->sh_offset);
    unsigned needed = 0;
    for (; entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag != DT_NEEDED)
            continue;
        const char *name = names + entry->d_un.d_val;
        bool known = false;
        for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
            known |= !strncmp(name, allowed[i], strlen(allowed[i]));
        if (!known)
            fail_msg("kiln-run needs %s", name);
        needed++;
    }
    assert_true(needed > 0);
}

static void holds_lib_base_only(void **state) {
    const struct image *image = *state;
    static const char *const foreign[] = {"kiln_digest_", "kiln_tree_", "kiln_action_", "kiln_sign", "kiln_bus_",
                                          "kiln_store_",  "kiln_rustc_", "kiln_place", "EVP_", "avro_", "uv_"};
    const Elf64_Shdr *symbols = section_of(image, SHT_SYMTAB);
    if (!symbols)
        skip(); // a stripped build
    const char *names = (const char *)image->bytes.data + image->sections[symbols->sh_link].sh_offset;
    const Elf64_Sym *all = (const Elf64_Sym *)(const void *)(image->bytes.data + symbols->sh_offset);
    unsigned own = 0;
    for (size_t i = 0; i < symbols->sh_size / sizeof *all; i++) {
        const char *name = names + all[i].st_name;
        own += !strncmp(name, "kiln_fs_", 8);
        for (size_t k = 0; k < sizeof foreign / sizeof *foreign; k++)
            if (!strncmp(name, foreign[k], strlen(foreign[k])))
                fail_msg("kiln-run holds %s", name);
    }
    assert_true(own > 0);
}

int main(void) {
    const struct CMUnitTest all[] = {
        cmocka_unit_test_setup_teardown(needs_the_c_library_only, open_image, close_image),
        cmocka_unit_test_setup_teardown(holds_lib_base_only, open_image, close_image),
    };
    return cmocka_run_group_tests(all, NULL, NULL);
}
