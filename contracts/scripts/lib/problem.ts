// A refusal: what is wrong, and what to do next. Scripts print it without a stack trace.

export class Problem extends Error {
  readonly next: string;

  constructor(what: string, next: string) {
    super(what);
    this.next = next;
  }
}

/** Runs a script's main function; a Problem ends it with exit code 1 and two lines. */
export async function runScript(name: string, main: () => Promise<void>): Promise<void> {
  try {
    await main();
  } catch (error) {
    process.exitCode = 1;
    if (error instanceof Problem) {
      console.error(`${name}: ${error.message}\n${error.next}`);
      return;
    }
    // viem's errors have a short form without the whole request, whose URL may hold a key.
    const short = (error as { shortMessage?: string }).shortMessage;
    console.error(`${name}: ${short ?? (error as Error).message}`);
    if (process.env["DEBUG"]) console.error(error);
    else console.error("With DEBUG=1 it shows where this came from. What was done is kept: run it again to go on.");
  }
}
