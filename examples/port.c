/* The beginning of a port in C, and how its arrays become files that npgemma compares.
 *
 *     cc -O2 -o port examples/port.c -lm
 *     ./port tiny/model.safetensors trace.safetensors out
 *     python cli.py compare out --map examples/port.toml --reference trace.safetensors
 *
 * It reads the pixels from a trace and the weights from a checkpoint (both float32), computes the patch embedding and
 * the first norm, and writes each as a .npy file. With -DMISTAKE it cuts patches column by column.
 */
#include <math.h>
#include <string.h>

#include "trace.h"

#define TOWER "vision_tower.vision_model."
#define EPSILON 1e-6

static void write_npy(const char *folder, const char *name, const float *values, long rows, long columns) {
    char path[1024], header[129];
    FILE *file;
    int length;
    snprintf(path, sizeof path, "%s/%s.npy", folder, name);
    file = fopen(path, "wb");
    if (!file) trace_fail("cannot write", path);
    length = snprintf(header, sizeof header, "{'descr': '<f4', 'fortran_order': False, 'shape': (%ld, %ld), }", rows,
                      columns);
    /* The header is filled with blanks, so that the numbers begin at byte 128. */
    memset(header + length, ' ', 117 - length);
    header[117] = '\n';
    fwrite("\x93NUMPY\x01\x00\x76\x00", 1, 10, file);
    fwrite(header, 1, 118, file);
    fwrite(values, sizeof *values, rows * columns, file);
    fclose(file);
}

int main(int count, char **words) {
    trace_file weights, trace;
    trace_array pixels, kernel, bias, position, scale, shift;
    long side, patch, grid, width, t, d, c, y, x;
    float *embedded, *normed;
    if (count != 4) trace_fail("expected WEIGHTS TRACE FOLDER after", words[0]);
    weights = trace_open(words[1]), trace = trace_open(words[2]);
    pixels = trace_get(&trace, "encode_image.0/pixels_BYXC");
    kernel = trace_get(&weights, TOWER "embeddings.patch_embedding.weight"); /* D, C, y, x */
    bias = trace_get(&weights, TOWER "embeddings.patch_embedding.bias");
    position = trace_get(&weights, TOWER "embeddings.position_embedding.weight");
    scale = trace_get(&weights, TOWER "encoder.layers.0.layer_norm1.weight");
    shift = trace_get(&weights, TOWER "encoder.layers.0.layer_norm1.bias");
    side = pixels.shape[1], width = kernel.shape[0], patch = kernel.shape[2], grid = side / patch;
    embedded = malloc(sizeof *embedded * grid * grid * width);
    normed = malloc(sizeof *normed * grid * grid * width);

    for (t = 0; t < grid * grid; t++) {
#ifdef MISTAKE
        long top = t % grid * patch, left = t / grid * patch;
#else
        long top = t / grid * patch, left = t % grid * patch;
#endif
        for (d = 0; d < width; d++) {
            double sum = bias.values[d];
            for (c = 0; c < 3; c++)
                for (y = 0; y < patch; y++)
                    for (x = 0; x < patch; x++)
                        sum += pixels.values[((top + y) * side + left + x) * 3 + c] *
                               (double)kernel.values[((d * 3 + c) * patch + y) * patch + x];
            embedded[t * width + d] = sum + position.values[t * width + d];
        }
    }
    write_npy(words[3], "patch_embed", embedded, grid * grid, width);

    for (t = 0; t < grid * grid; t++) {
        const float *row = embedded + t * width;
        double mean = 0, variance = 0;
        for (d = 0; d < width; d++) mean += row[d] / width;
        for (d = 0; d < width; d++) variance += (row[d] - mean) * (row[d] - mean) / width;
        for (d = 0; d < width; d++)
            normed[t * width + d] = (row[d] - mean) / sqrt(variance + EPSILON) * scale.values[d] + shift.values[d];
    }
    write_npy(words[3], "blk.0.attn_norm", normed, grid * grid, width);
    printf("2 arrays of the image of '%s' written to %s\n", trace_metadata(&trace, "prompt"), words[3]);
    return 0;
}
