"""Sentences of our own for `benchmarks.compensated`: some to repair with, others, about other things, to judge by."""

from __future__ import annotations

CALIBRATION = """
The ferry to the island leaves at half past seven and takes forty minutes.
My grandmother kept her recipes in a blue tin above the stove.
Heavy rain is expected along the coast from late afternoon.
The committee will vote on the new budget next Tuesday.
Water boils at a lower temperature high up in the mountains.
She learned to play the cello when she was almost sixty.
A small company in Porto makes bicycles out of bamboo.
The patient was discharged after two days with no further symptoms.
He forgot his umbrella on the train again.
Copper is a better conductor of heat than iron.
The museum has reopened its east wing after three years of repairs.
Please reset my password and send me a confirmation.
The striker missed a penalty in the last minute of the match.
Every evening the old man feeds the pigeons in the square.
Prices for olive oil have doubled since last spring.
The function returns an empty list if nothing matches.
A lighthouse keeper lived here until the nineteen fifties.
They painted the kitchen yellow and regretted it at once.
The court dismissed the appeal for lack of evidence.
Bees communicate the direction of food by dancing.
How do I remove a coffee stain from a white shirt?
The bridge was closed to lorries because of cracks in its pillars.
Her first novel sold fewer than three hundred copies.
The two countries signed an agreement on fishing rights.
Turn left at the bakery and walk until you reach the river.
Our flight was delayed by a thunderstorm over the Alps.
The enzyme loses its activity above sixty degrees.
No one in the village remembers when the well ran dry.
The new phone has a brighter screen and a larger battery.
I would like a table for four by the window, please.
The orchestra rehearsed the slow movement twice.
Inflation fell for the third month in a row.
Children under twelve travel free on weekends.
The dog barked at the postman through the fence.
A meteor lit up the sky above the desert last night.
The recipe calls for two eggs, flour, butter and a pinch of salt.
Researchers trained a model to recognise whales by their songs.
He apologised for the noise and turned the music down.
The mayor promised cheaper housing during her campaign.
This jacket is waterproof but rather heavy.
The glacier has retreated by more than a kilometre in fifty years.
What time does the pharmacy close on Sundays?
The actor refused to comment on rumours about his health.
A train carrying grain derailed outside the station.
Light travels about three hundred thousand kilometres in a second.
She wrapped the present in an old map of the city.
The warranty does not cover damage caused by water.
Farmers in the valley grow apricots and almonds.
The teacher explained the difference between weather and climate.
Our team lost the final by a single point.
You can track your parcel with the number in this message.
The castle was rebuilt in stone after the fire.
Sleep helps the brain to store what was learned during the day.
The tenant must give three months of notice in writing.
A pair of storks nests on the chimney every year.
The engine makes a rattling sound when it is cold.
He translated the poem into Finnish without a dictionary.
The bank has raised its interest rates by half a point.
Mix the paint well before you apply the second coat.
The president arrived in Nairobi for talks on trade.
Our cat sleeps in the laundry basket.
The algorithm sorts a million numbers in less than a second.
The vaccine was tested on volunteers in four countries.
A violin from the eighteenth century was found in an attic.
The path is steep, and slippery after rain.
They met at a conference on soil chemistry.
The film tells the story of two sisters who inherit a hotel.
The lift is out of order; please use the stairs.
Sea turtles return to the beach where they were born.
The shareholders rejected the merger by a narrow margin.
I have never seen so many fireflies in one garden.
Remove the battery before you clean the device.
The library lends out tools as well as books.
Gold fell slightly while the dollar gained.
The surgeon washed her hands and put on a mask.
An earthquake of magnitude six shook the north of the island.
His bicycle was stolen in front of the office.
The choir sang without a conductor.
Two thirds of the participants finished the whole course.
The soup needs more pepper and perhaps some lemon.
She runs ten kilometres before breakfast.
The treaty ended a war that had lasted thirty years.
Volcanic ash makes the soil very fertile.
We are looking for a nurse with experience in intensive care.
The parrot repeats everything that my uncle says.
Solar panels now cover the roof of the school.
The witness could not identify the man in the photograph.
Cut the fabric along the dotted line.
The river froze so hard that people skated to the market.
Tickets are available online and at the door.
The startup raised nine million euros from investors.
Vitamin C is destroyed by long cooking.
The novel begins with a funeral and ends with a wedding.
My laptop overheats whenever I join a video call.
The goalkeeper was sent off after twenty minutes.
They planted a tree for every child born in the town.
The satellite sends back an image every six hours.
He has been the village blacksmith for forty years.
The exam consists of three written parts and an interview.
Spring came early, and the cherries were in bloom by March.
The minister resigned over a misuse of public funds.
The shop sells second-hand records and strong coffee.
Antarctic ice holds air from hundreds of thousands of years ago.
Could you repeat the last part more slowly?
The fire brigade rescued a calf from a frozen pond.
The company recalled forty thousand heaters.
Whales were hunted here for their oil.
She is allergic to nuts, shellfish and most cats.
The detective noticed that the clock had stopped at noon.
Exports to Asia grew faster than expected.
The keyboard has no letter keys left to read.
A kilogram of feathers weighs as much as a kilogram of lead.
The council will plant hedges along the motorway.
He whistled as he walked through the dark forest.
The judges were impressed by the youngest dancer.
Their flat is on the fifth floor of a building without a lift.
The theory predicts a particle that nobody has seen.
Breakfast is served from six until ten.
The volcano has been quiet since 1911.
The sculptor works with wood that the sea has washed ashore.
Unemployment among young people has reached a record low.
This medicine should be taken with plenty of water.
The fox crossed the road and vanished into the maize.
The database is backed up every night at two.
A good knife should be sharpened, not replaced.
The referee looked at the replay and changed his mind.
Most of the cargo was tea and silk.
The hospital is short of beds and of staff.
Grandfather told us the same story every Christmas.
The telescope was built on a mountain to escape the lights of the city.
He signed the contract without reading it.
The sauce thickens as it cools.
The strike has stopped all trains to the airport.
Her thesis is about bridges of the Roman army.
Rabbits were brought to the continent by settlers.
The printer says that it is out of cyan.
The colony declared its independence in July.
The mountain hut has room for eighteen guests.
Quarterly profits were lower than analysts had forecast.
The baby laughed at the sound of tearing paper.
The lake is too cold for swimming even in August.
You need a permit to photograph inside the temple.
The pianist played the encore with one hand.
The reactor was shut down for routine maintenance.
A stranger returned my wallet with all the money in it.
The roof leaks in three places.
The dictionary lists four meanings of the word.
Migrating geese flew over the house all night.
The defendant pleaded not guilty.
To install the package, run the command below.
The beach is empty in winter, apart from a few surfers.
The empire collapsed within a single generation.
The gardener covers the roses with straw before the first frost.
Half of the city was without electricity on Monday.
He collects stamps that show lighthouses.
The bus was so full that nobody could fall over.
The trial showed no difference between the drug and the placebo.
Cinnamon comes from the bark of a tree.
The architect left the old bricks visible.
They argued about politics until the candles had burned down.
The camel can go for weeks without drinking.
Our neighbours are moving to Canada in the autumn.
The senate passed the law by fifty-one votes to forty-nine.
A broken window let the snow into the classroom.
The professor answers his letters on a typewriter.
The swimmer set a new record over two hundred metres.
A thin layer of dust covered the piano.
The insurance pays only if the door was locked.
Astronomers have found water in the atmosphere of a distant planet.
The onions should be soft but not brown.
The festival was cancelled because of the storm.
The boy built a radio out of spare parts.
The statue lost its nose in the eighteenth century.
The ministry warned travellers about pickpockets.
My sister works night shifts in a bakery.
The equation has no solution in whole numbers.
The cheese ripens in a cave for eleven months.
The hikers were found safe after two nights in the open.
Demand for electric cars fell when the subsidy ended.
The owl hunts by hearing alone.
We ran out of diesel in the middle of nowhere.
The curtain rose on an empty stage.
The carpet was woven by hand in a village near the border.
The error occurs only if two users save at the same moment.
The queen was crowned at the age of nine.
Ants follow a trail of scent back to the nest.
The tailor shortened the sleeves by an inch.
The central bank sold some of its gold.
The nurse measured his blood pressure twice.
There is a fly in my soup.
The dam supplies power to two provinces.
He speaks five languages, all of them with an accent.
The harvest was poor because of the drought.
The museum guard fell asleep beside the most valuable painting.
The winner will be announced on the radio tonight.
Never pour water on burning oil.
The new law bans plastic bags in supermarkets.
The moon was so bright that we could read by it.
A retired sailor repairs clocks in the harbour.
The test covers both chapters of the book.
The road to the summit is closed until May.
""".strip().splitlines()
"""To repair with."""

TEST = """
The chess champion resigned after forty-one moves.
Add the rice once the stock is boiling.
A tunnel under the strait would halve the travelling time.
The tortoise outlived three of its owners.
Investors fled to government bonds on Friday.
She sent a postcard from every harbour.
The compiler refuses to build the module without a type.
A rainbow appeared over the football stadium.
The dentist found no cavities this time.
The duke gambled his estate away in one winter.
How many litres of paint do I need for two rooms?
The plane circled above the airport until the fog lifted.
Penguins huddle together to keep warm.
The committee postponed its decision until the summer.
He tuned the guitar by ear.
The glass slipped out of her hand and broke.
The drug lowers cholesterol in most patients.
A columnist compared the prime minister to a weathercock.
The bakery has run out of rye bread.
Iron rusts when it meets water and air.
The subway is faster than a taxi at this hour.
My neighbour grows tomatoes on her balcony.
Police are looking for a white van with a broken lamp.
The symphony ends very quietly.
The spacecraft will reach Jupiter in six years.
The waiter recommended the grilled sardines.
The jury could not agree on a verdict.
Otters hold hands while they sleep.
The update deleted all of my settings.
A flood destroyed the only road into the valley.
The runner collapsed a few steps before the finish.
The library closes at eight on weekdays.
The potter signs each bowl on its underside.
Rents in the capital have risen faster than wages.
The bell tower leans slightly to the west.
He was born on a boat between two continents.
The virus spreads mainly through the air.
The opposition demands a new election.
Clean the filter once a month.
A herd of goats blocked the motorway.
The actress won the prize for her role as a beekeeper.
The shares lost a tenth of their value within an hour.
The soil here is too sandy for potatoes.
I cannot connect my headphones to the television.
The knight in the painting has no shadow.
The swimming pool is heated by waste heat from the bakery.
Two miners were rescued after a week underground.
The proof rests on a lemma from the nineteen thirties.
The carpenter measured twice and cut once.
The storm tore the flag from its pole.
The parliament debated the reform of pensions.
Dolphins recognise themselves in a mirror.
The invoice is due within thirty days.
Her suitcase arrived two days after she did.
The desert blooms for a week after the rain.
The coach praised the defence of his team.
The comet returns every seventy-six years.
The landlord has not repaired the heating.
This tea tastes of smoke and oranges.
The bookshop smells of dust and leather.
The peace talks broke down over the question of borders.
An apprentice found the mistake in the drawings.
The elephant remembered its former keeper.
The recording was made in an empty church.
The server answers in less than twenty milliseconds.
The hotel offers a shuttle from the station.
The scientist spent a winter alone at the pole.
The price includes breakfast and taxes.
The bull escaped during the parade.
The island has more sheep than people.
A fingerprint on the glass led to the thief.
The dress was sewn from a parachute.
The factory will close at the end of the year.
The toddler hid the car keys in a boot.
The lecture on black holes was sold out.
The bread did not rise because the yeast was old.
The goal was disallowed for offside.
The monks brew beer from their own barley.
Unexploded bombs were found on the building site.
The poet wrote his best lines in prison.
The lamp flickers when the fridge switches on.
The airline lost a third of its passengers.
The judge ordered the company to pay damages.
Whoever finds the ring may keep it.
The tide comes in faster than a man can run.
The vineyard was planted by the Romans.
The programme crashes when the file is empty.
The doctor advised him to give up salt.
A raven stole the shiny button.
The old cinema is now a climbing hall.
The ambassador was recalled after the incident.
The mushrooms grow only under birches.
The magician never explains his tricks.
The wind turbines can be seen from the coast.
The choir needs two more tenors.
A single match lit the whole barn.
The map shows streets that no longer exist.
The queue reached around the corner.
The census counts everyone who slept in the city that night.
The violinist broke a string during the solo.
""".strip().splitlines()
"""To judge by."""
