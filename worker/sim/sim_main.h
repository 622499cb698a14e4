/* sim_main: `stator simulate`: flags in, one simulation, tables out.
 *
 * Owns     nothing that outlives the call.
 * Units    flags as --help says; sizes take a suffix K, M, G or T.
 * States   -
 * Threads  main.
 * Errors   printed; the return value is the exit status: 0, 1 for a failed run or a wrong token, 2 for bad flags.
 * Bounds   every number has its limits in one table.
 * Source   shared/design/SCHEDULING.md 10.4.
 */
#ifndef STATOR_SIM_MAIN_H
#define STATOR_SIM_MAIN_H

/* argv[0] is the subcommand's own name. */
int sim_main(int argc, char **argv);

#endif
